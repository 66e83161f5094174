import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import contextual_attention as ca

# The settings of the published implementations.
OFFICIAL = dict(resize='align_corners', key_norm='max')
V1 = dict(resize='floor', key_norm='sum')
V2 = dict(resize='floor', key_norm='max')


attend = jax.jit(
  ca.contextual_attention, static_argnames=('fuse', 'resize', 'key_norm', 'block_bytes')
)


def valid_for(data, f, **settings):
  h, w = f.shape[1] // 2, f.shape[2] // 2
  return ca.valid_keys(ca.reduce_mask(data, h, w, **settings))


@goldens.cases('contextual_attention_official_tf')
def test_official_graph(case):
  data = {k: goldens.nhwc(v) for k, v in case.data().items()}
  f, b = data['f'], data['b']
  h, w = f.shape[1] // 2, f.shape[2] // 2
  valid = valid_for(data['mask'], f, steps=1)  # the mask has the features' size already
  for name, fuse in (('fuse', True), ('nofuse', False)):
    y, index = attend(f, b, valid, fuse=fuse, **OFFICIAL)
    goldens.assert_close(y, data[f'y_{name}'], what=name)
    rows, columns = np.divmod(np.asarray(index), w)
    offset = np.stack([rows - np.arange(h)[:, None], columns - np.arange(w)], -1)
    # The reference doubles its offsets with aligned corners; each is there at least once.
    doubled = np.asarray(data[f'offset_{name}'])
    pick = lambda n, m: np.round(np.arange(m) * (n - 1) / (m - 1)).astype(int)
    np.testing.assert_array_equal(doubled[:, pick(2 * h, h)][:, :, pick(2 * w, w)], offset)


@functools.partial(jax.jit, static_argnames=('fuse', 'resize', 'key_norm'))
def attention_weights(f, b, valid, fuse, resize, key_norm, scale=10.0):
  """The softmax itself, [B,H/2,W/2, H/2 * W/2], before invalid patches' weights become 0."""
  queries, keys = ca._queries_and_keys(f, b, resize, key_norm, fuse)
  return ca._weights(queries, keys, valid, fuse, scale, (f.shape[1] // 2, f.shape[2] // 2), 0)


@goldens.cases('contextual_attention_tf', 'contextual_attention_v1', 'contextual_attention_v2')
def test_ports(case):
  settings = {'tf': OFFICIAL, 'v1': V1, 'v2': V2}[case.name.removeprefix('contextual_attention_')]
  data = case.data()
  f, b = goldens.nhwc(data['f']), goldens.nhwc(data['b'])
  mask = goldens.nhwc(data['mask'])[:1]  # the first item's serves the whole batch there
  valid = valid_for(mask, f, resize=settings['resize'], steps=1)
  everywhere = jnp.ones_like(valid)
  for name, fuse in (('fuse', True), ('nofuse', False)):
    y, index = attend(f, b, valid, fuse=fuse, **settings)
    goldens.assert_close(goldens.nchw(y), data[f'y_{name}'], what=name)
    weights = attention_weights(f[:1], b[:1], valid, fuse, **settings)
    score = np.asarray(weights)[:, ::3, ::3].transpose(0, 3, 1, 2)
    goldens.assert_close(score, data[f'score_{name}'], what=f'{name}, weights')
    # The reference takes the index before it drops the weights of patches in the hole.
    want = data[f'argmax_{name}'].reshape(index.shape).astype(int)
    usable = np.asarray(valid)[0][want] == 1
    assert usable.mean() > 0.5
    np.testing.assert_array_equal(np.asarray(index)[usable], want[usable])
  y, _ = attend(f[:1], f[:1], valid, **settings)
  goldens.assert_close(goldens.nchw(y), data['y_self_fuse'], what='self')
  y, _ = attend(f[:1], b[:1], everywhere, **settings)
  goldens.assert_close(goldens.nchw(y), data['y_nomask_fuse'], what='no mask')


def naive(f, b, valid, fuse):
  """The definition for one sample, in float64: whole score matrix, explicit indices."""
  f, b = np.asarray(f, np.float64), np.asarray(b, np.float64)
  height, width, c = f.shape
  h, w = height // 2, width // 2
  small = lambda x: np.pad(x[::2, ::2], ((1, 1), (1, 1), (0, 0)))
  patch = lambda x, n: x[n // w : n // w + 3, n % w : n % w + 3].ravel()
  count = h * w
  queries = np.stack([patch(small(f), n) for n in range(count)])
  keys = np.stack([patch(small(b), n) for n in range(count)])
  scores = queries @ (keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-4)).T
  if fuse:
    for order in (np.arange(count), np.arange(count).reshape(h, w).T.ravel()):
      ordered, total = scores[np.ix_(order, order)], np.zeros_like(scores)
      for q in range(count):
        for k in range(count):
          for d in (-1, 0, 1):
            if 0 <= q + d < count and 0 <= k + d < count:
              total[q, k] += ordered[q + d, k + d]
      back = np.argsort(order)
      scores = total[np.ix_(back, back)]
  weights = np.exp(10 * scores * valid - (10 * scores * valid).max(1, keepdims=True))
  weights = weights / weights.sum(1, keepdims=True) * valid
  padded = np.pad(b, ((1, 1), (1, 1), (0, 0)))
  out = np.zeros((height + 2, width + 2, c))
  for q in range(count):
    for k in range(count):
      at = lambda n: (slice(2 * (n // w), 2 * (n // w) + 4), slice(2 * (n % w), 2 * (n % w) + 4))
      out[at(q)] += weights[q, k] * padded[at(k)]
  return out[1:-1, 1:-1] / 4


def sample(height=8, width=12, batch=2, channels=3):
  f, b = np.random.default_rng(3).standard_normal((2, batch, height, width, channels), np.float32)
  mask = np.zeros((batch, height // 2, width // 2, 1), np.float32)
  mask[0, 1, 2] = mask[-1, :, -2:] = 1
  return f, b, jax.jit(ca.valid_keys)(mask)


@pytest.mark.parametrize('fuse', [True, False])
def test_the_definition_with_a_mask_for_each_sample(fuse):
  f, b, valid = sample()
  y, _ = attend(f, b, valid, fuse=fuse, resize='floor')
  for i in range(len(f)):
    want = naive(f[i], b[i], np.asarray(valid)[i], fuse)
    np.testing.assert_allclose(y[i], want, atol=1e-5)


@pytest.mark.parametrize('fuse', [True, False])
@pytest.mark.parametrize('rows', [1, 3])
def test_blocks_change_neither_result_nor_gradient(fuse, rows):
  f, b, valid = sample(height=10)
  halo = 2 if fuse else 0
  of_row = 4 * len(f) * (6 + halo) * 30

  def run(block_bytes):
    def loss(f, b):
      y, index = ca.contextual_attention(f, b, valid, fuse=fuse, block_bytes=block_bytes)
      return jnp.sin(y).sum(), (y, index)

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(f, b)
    return found, gradients

  whole, blocks = run(2**30), run((rows + halo) * of_row)
  np.testing.assert_array_equal(whole[0][1], blocks[0][1])
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), whole, blocks)


def test_less_memory_in_blocks():
  f = jax.ShapeDtypeStruct((1, 48, 48, 4), jnp.float32)
  valid = jax.ShapeDtypeStruct((1, 576), jnp.float32)

  def temporary(block_bytes):
    run = lambda f, valid: ca.contextual_attention(f, f, valid, block_bytes=block_bytes)[0]
    gradient = jax.grad(lambda f, valid: run(f, valid).sum())
    return jax.jit(gradient).lower(f, valid).compile().memory_analysis().temp_size_in_bytes

  assert temporary(2**17) < temporary(2**30) / 4


def test_reduced_positions():
  # By hand: 31 / 15 * i, rounded; the first half even, the second odd.
  x = jnp.arange(32.0).reshape(1, 32, 1, 1)
  found = np.asarray(ca.reduce_nearest(x, 16, 1, 'align_corners')).ravel()
  assert found.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31]
  assert np.asarray(ca.reduce_nearest(x, 16, 1, 'floor')).ravel().tolist() == list(range(0, 32, 2))
  line = lambda steps: np.asarray(ca.reduce_mask(x.repeat(8, 2), 4, 1, steps=steps)).ravel()
  assert line(1).tolist() == [0, 10, 21, 31] and line(2).tolist() == [0, 9, 22, 31]


def test_keys_beside_the_hole_are_not_valid():
  mask = np.zeros((1, 5, 6, 1), np.float32)
  mask[0, 0, 0] = mask[0, 3, 4] = 1.0
  found = np.asarray(ca.valid_keys(mask)).reshape(5, 6)
  want = np.ones((5, 6))
  want[:2, :2] = want[2:, 3:] = 0
  np.testing.assert_array_equal(found, want)


def test_the_offset_picture_shows_directions():
  h, w = 4, 6
  own = jnp.arange(h * w).reshape(1, h, w)
  np.testing.assert_allclose(ca.offset_picture(own, 8, 12), 1.0)  # its own place: white
  right = jnp.where(jnp.arange(w) < w - 1, own + 1, own)
  r, g, b = ca.offset_picture(right, h, w)[0, 0, 0]
  assert r == 1 and abs(float(g - b)) < 1e-6 and g < 0.8  # red


def test_wrong_settings_are_named():
  f, b, valid = sample()
  with pytest.raises(ValueError, match='7 x 12 must be even'):
    ca.contextual_attention(f[:, :7], b[:, :7], valid)
  with pytest.raises(ValueError, match=r'valid \(2, 24\) must be \[2 or 1, 12\]'):
    ca.contextual_attention(f[:, :4], b[:, :4], valid)
  with pytest.raises(ValueError, match="key_norm 'l2'"):
    ca.contextual_attention(f, b, valid, key_norm='l2')
  with pytest.raises(ValueError, match="resize 'ceil'"):
    ca.contextual_attention(f, b, valid, resize='ceil')
  with pytest.raises(ValueError, match='mask_steps 3'):
    ca.reduce_mask(jnp.zeros((1, 8, 8, 1)), 2, 2, steps=3)
