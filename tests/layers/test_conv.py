import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import arrays
from jaxinpaint.layers import conv, conv_cpu


def loop_conv_transpose(x, w, stride, padding, output_padding):
  """out[stride*i + t - padding] += x[i] * w[t], as the definition says."""
  b, h, ww, _ = x.shape
  k = w.shape[0]
  full = np.zeros(
    (b, (h - 1) * stride + k + output_padding, (ww - 1) * stride + k + output_padding, w.shape[-1])
  )
  for i in range(h):
    for j in range(ww):
      patch = np.einsum('bc,klco->bklo', x[:, i, j], w)
      full[:, i * stride : i * stride + k, j * stride : j * stride + k] += patch
  end = lambda n: n - padding
  return full[:, padding : end(full.shape[1]), padding : end(full.shape[2])]


SHAPES = [(4, 2, 1, 0), (3, 2, 1, 1), (5, 2, 2, 1), (2, 2, 0, 0), (3, 1, 1, 0), (3, 3, 0, 2)]


@pytest.mark.parametrize('form', ['cpu', 'plain'])
@pytest.mark.parametrize('shape', SHAPES)
def test_transposed_convolution_is_its_definition(shape, form):
  k, stride, padding, output_padding = shape
  rng = np.random.default_rng(0)
  x, w = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((k, k, 3, 2))
  got = conv.conv_transpose2d(
    jnp.asarray(x, jnp.float32),
    jnp.asarray(w, jnp.float32),
    stride=stride,
    padding=padding,
    output_padding=output_padding,
    form=form,
  )
  want = loop_conv_transpose(x, w, stride, padding, output_padding)
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize('shape', SHAPES[:3])
def test_both_transposed_forms_have_the_same_gradients(shape):
  k, stride, padding, output_padding = shape
  keys = jax.random.split(jax.random.key(0), 2)
  x, w = jax.random.normal(keys[0], (2, 6, 5, 3)), jax.random.normal(keys[1], (k, k, 3, 4))

  def loss(x, w, form):
    settings = dict(stride=stride, padding=padding, output_padding=output_padding, form=form)
    return jnp.square(conv.conv_transpose2d(x, w, **settings)).mean()

  got = jax.grad(loss, (0, 1))(x, w, 'cpu')
  want = jax.grad(loss, (0, 1))(x, w, 'plain')
  for g, r in zip(got, want, strict=True):
    assert float(jnp.abs(r).max()) > 0.01
    np.testing.assert_allclose(g, r, atol=1e-5)


CONVS = [
  (3, 1, 1, 1),
  (3, 1, 1, 2),
  (3, 1, 0, 2),
  (4, 2, 1, 1),
  (5, 2, 2, 1),
  (7, 1, 0, 1),
  (1, 1, 0, 1),
]


@pytest.mark.parametrize('features', [4, 2])  # more and fewer than the input's
@pytest.mark.parametrize('shape', CONVS)
def test_both_forms_of_convolution_agree_to_the_second_derivative(shape, features, monkeypatch):
  monkeypatch.setattr(conv_cpu, 'BLOCK_BYTES', 500)  # several blocks in these small maps
  k, stride, padding, dilation = shape
  keys = jax.random.split(jax.random.key(0), 2)
  x, w = (
    jax.random.normal(keys[0], (2, 12, 11, 3)),
    0.3 * jax.random.normal(keys[1], (k, k, 3, features)),
  )

  def value(form, x, w):
    settings = dict(stride=stride, padding=padding, dilation=dilation, form=form)
    return jnp.tanh(conv.conv2d(x, w, **settings))

  def penalty(form, x, w):  # of the input's gradient, as in WGAN-GP
    gradient = jax.grad(lambda x: value(form, x, w).sum())(x)
    return jnp.square(gradient).sum()

  np.testing.assert_allclose(value('cpu', x, w), value('plain', x, w), atol=1e-5)
  for loss in (lambda *a: value(*a).sum(), penalty):
    got, want = (jax.grad(loss, (1, 2))(form, x, w) for form in ('cpu', 'plain'))
    for g, r in zip(got, want, strict=True):
      scale = float(jnp.abs(r).max())
      assert scale > 0.01
      np.testing.assert_allclose(g / scale, r / scale, atol=1e-5)


def test_weight_gradient_blocks_cover_the_batch():
  assert conv_cpu._block(8, 16, 100, 4000) == (2, 16)
  assert conv_cpu._block(8, 16, 100, 900) == (1, 8)
  assert conv_cpu._block(3, 16, 100, 10) == (1, 1)
  assert conv_cpu._block(3, 16, 100, 10**6) == (3, 16)


def test_conv_pads_mirrors_and_dilates():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)  # reads the pixel up and left
  plain = conv.conv2d(x, kernel, padding=1)[0, ..., 0]
  assert plain[0, 0] == 0 and plain[1, 1] == x[0, 0, 0, 0] and plain[3, 3] == x[0, 2, 2, 0]
  mirrored = conv.conv2d(x, kernel, padding=2, dilation=2, pad_mode='reflect')[0, ..., 0]
  assert mirrored[0, 0] == x[0, 2, 2, 0] and mirrored[3, 3] == x[0, 1, 1, 0]
  halved = conv.conv2d(x, jnp.ones((4, 4, 1, 1)), stride=2, padding=1)[0, ..., 0]
  assert halved.shape == (2, 2) and halved[0, 0] == x[0, :3, :3].sum()


@pytest.mark.parametrize('side, padding', [(9, 2), (9, 4), (9, 5), (9, 8), (3, 1), (2, 1)])
def test_both_forms_of_mirroring_have_the_same_gradient(side, padding):
  x = jax.random.normal(jax.random.key(0), (2, side, side + 1, 3))
  loss = lambda x, form: jnp.sin(3 * conv.reflect_pad(x, padding, form)).sum()
  got, want = (jax.grad(loss)(x, form) for form in ('cpu', 'plain'))
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_map_too_small_to_mirror_is_refused():
  with pytest.raises(ValueError, match='8 x 9 cannot be mirrored by 8'):
    conv.reflect_pad(jnp.zeros((1, 8, 9, 1)), 8)


def test_parameters_stay_float32_under_bfloat16():
  for layer in (conv.Conv(4, 3, padding=1, dtype=jnp.bfloat16), conv.ConvTranspose(4)):
    x = jnp.ones((1, 4, 4, 2))
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert y.dtype == layer.dtype


def test_default_initialisation_is_narrow_normal_with_zero_bias():
  params = conv.Conv(64, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))['params']
  assert abs(float(params['kernel'].std()) - 0.02) < 5e-4 and not params['bias'].any()


def test_upsampling_and_pooling():
  x = jnp.asarray([[0.0, 4.0]]).reshape(1, 1, 2, 1)
  np.testing.assert_allclose(conv.upsample_bilinear(x)[0, :, :, 0], [[0, 1, 3, 4]] * 2)
  x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
  for height, width in ((12, 16), (3, 4), (7, 9)):
    want = arrays.resize_bilinear(x, height, width)
    np.testing.assert_allclose(conv.resize_bilinear(x, height, width), want, atol=1e-6)
  x = jnp.arange(8.0).reshape(1, 2, 4, 1)
  np.testing.assert_allclose(conv.avg_pool(x)[0, 0, :, 0], [2.5, 4.5])


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', [(1, 1), (2, 3), (9, 12)])
def test_doubling_is_the_interpolation(shape, align_corners):
  x = jax.random.normal(jax.random.key(0), (2, *shape, 3))
  got = conv.upsample_bilinear(x, align_corners=align_corners)
  want = arrays.resize_bilinear(x, 2 * shape[0], 2 * shape[1], align_corners=align_corners)
  np.testing.assert_allclose(got, want, atol=1e-5)
  half = conv.upsample_bilinear(x.astype(jnp.bfloat16), align_corners=align_corners)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), want, atol=0.05)
