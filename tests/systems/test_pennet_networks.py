"""The networks of PEN-Net against their code's own outputs."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.systems.pennet import networks, published
from jaxinpaint.weights import mapping


def variables(case, entries):
  tree = mapping.convert(case.state(), entries)
  (network,) = tree['params']
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


def get(data, *names):
  return tuple(goldens.nhwc(data[name]) for name in names)


@goldens.cases('pennet_atnconv', 'pennet_atnconv_k1_nofuse')
def test_attention_transfer(case):
  data = case.data()
  fused = 'nofuse' not in case.name
  layer = networks.ATN(size=3 if fused else 1, fuse=fused)
  params = variables(case, published.atn_entries('', ())) if fused else {}
  y = jax.jit(layer.apply)(params, *get(data, 'x1', 'x2', 'mask'))
  goldens.assert_close(goldens.nchw(y), data['y'])


@goldens.cases('pennet_generator')
def test_generator(case):
  data = case.data()
  masked, mask = get(data, 'images_masked', 'mask')
  params = variables(case, published.generator_entries())
  found = jax.jit(networks.Generator().apply)(params, (masked + 1) / 2, mask)
  signed = lambda name: goldens.nchw(2 * found[name] - 1)
  goldens.assert_close(signed('out'), data['output'], what='out')
  for i in (1, 3, 5):
    goldens.assert_close(signed(f'pyramid{i}'), data[f'pyramid_{i}'], what=f'pyramid{i}')
  goldens.assert_close(goldens.nchw(found['level5']), data['atn5'], what='level5')
  goldens.assert_close(goldens.nchw(found['level3'])[:, ::8], data['atn3'], what='level3')


@goldens.cases('pennet_discriminator')
def test_discriminator(case):
  data = case.data()
  params = variables(case, published.discriminator_entries())
  logits, features = jax.jit(networks.Discriminator().apply)(params, get(data, 'x')[0] / 2 + 0.5)
  goldens.assert_close(goldens.nchw(logits), data['y'], what='logits')
  shown = goldens.nchw(features[1])[:, ::16]
  goldens.assert_close(shown, data['enc_act1'], what='second layer')


def direct_transfer(deep, shallow, valid, size):
  """The definition, place by place."""
  h, w, _ = deep.shape
  r = size // 2
  padded = np.pad(deep, ((r, r), (r, r), (0, 0)))
  patch = lambda i, j: padded[i : i + size, j : j + size].ravel()
  places = [(i, j) for i in range(h) for j in range(w)]
  p = np.array([patch(i, j) for i, j in places])
  keys = p / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-4)
  scores = np.exp(10 * (p @ keys.T) * valid)
  weights = np.maximum(scores / scores.sum(1, keepdims=True) * valid, 1e-8)
  wide = np.pad(shallow, ((1, 1), (1, 1), (0, 0)))
  out = np.zeros_like(wide)
  for q, (i, j) in enumerate(places):
    for k, (y, x) in enumerate(places):
      part = wide[2 * y : 2 * y + 4, 2 * x : 2 * x + 4]
      out[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += weights[q, k] * part / 4
  return out[1:-1, 1:-1]


@pytest.mark.parametrize('size', [1, 3])
def test_a_transfer_is_its_definition_on_maps_that_are_not_square(size):
  rng = np.random.default_rng(0)
  draw = lambda *s: rng.standard_normal(s).astype(np.float32) / 2
  deep, shallow = draw(1, 4, 6, 3), draw(1, 8, 12, 2)
  mask = np.zeros((1, 16, 24, 1), np.float32)
  mask[:, 9:16, 14:24] = 1
  layer = networks.ATN(size=size, fuse=False)
  valid = np.asarray(networks.free_keys(mask, 4, 6, size))
  assert 0 < valid.sum() < valid.size
  want = direct_transfer(deep[0], shallow[0], valid[0], size)
  got = jax.jit(functools.partial(layer.apply, {}))(shallow, deep, mask)
  np.testing.assert_allclose(got[0], want, atol=1e-5)


def test_the_papers_transfer_leaves_known_places_as_they_are():
  rng = np.random.default_rng(0)
  shallow, deep = rng.random((1, 16, 16, 4), np.float32), rng.random((1, 8, 8, 4), np.float32)
  mask = np.zeros((1, 32, 32, 1), np.float32)
  mask[:, 8:20, 12:20] = 1
  hole = mask[0, ::2, ::2, 0] == 1
  for transfer, kept in (('paper', True), ('released', False)):
    layer = networks.ATN(fuse=False, transfer=transfer)
    y = np.asarray(jax.jit(functools.partial(layer.apply, {}))(shallow, deep, mask))
    assert (y[0][~hole] == shallow[0][~hole]).all() == kept
    assert (y[0][hole] != shallow[0][hole]).all()
  with pytest.raises(ValueError, match="transfer 'all' must be"):
    networks.ATN(transfer='all').init(jax.random.key(0), shallow, deep, mask)


def test_a_wrong_size_is_named():
  image = jnp.zeros((1, 64, 96, 3))
  with pytest.raises(ValueError, match='width 96 must be a multiple of 64'):
    networks.Generator().init(jax.random.key(0), image, image[..., :1])
