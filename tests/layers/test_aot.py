import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.aot import AOTBlock, gate_norm
from jaxinpaint.weights import mapping

NAMES = {f'block0{i}.1': f'branch{i}' for i in range(4)} | {'fuse.1': 'fuse', 'gate.1': 'gate'}


@goldens.cases('aotgan_gate_norm')
def test_gate_norm_and_its_gradient(case):
  data = case.data()
  x, weights = goldens.nhwc(data['x']), goldens.nhwc(data['cotangent'])
  loss = lambda x: ((gate_norm(x) * weights).sum(), gate_norm(x))
  gradient, out = jax.jit(jax.grad(loss, has_aux=True))(x)
  goldens.assert_close(goldens.nchw(out), data['out'])
  goldens.assert_close(goldens.nchw(gradient), data['grad_x'])


@goldens.cases('aotgan_aotblock')
def test_block_and_gradients(case):
  data = case.data()
  entries = sum((mapping.conv(key, 'net', (name,)) for key, name in NAMES.items()), ())
  params = mapping.convert(case.state(), entries)['params']['net']
  x, weights = goldens.nhwc(data['x']), goldens.nhwc(data['cotangent'])

  def loss(params, x):
    out, inner = AOTBlock().apply({'params': params}, x, mutable=['intermediates'])
    return (out * weights).sum(), (out, inner['intermediates']['opening'][0])

  (gp, gx), (out, gate) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
  goldens.assert_close(goldens.nchw(out), data['out'], what='out')
  goldens.assert_close(goldens.nchw(gate)[:1], data['gate_b0'], what='gate')
  goldens.assert_close(goldens.nchw(gx), data['grad_x'], what='d/dx')
  for name in ('gate', 'fuse'):
    got = np.transpose(gp[name]['kernel'], (3, 2, 0, 1))
    want = data[f'grad_{name}_w']
    # Sums over all pixels: large numbers, so relative to the largest.
    goldens.assert_close(got / np.abs(want).max(), want / np.abs(want).max(), what=f'd/d{name}')


def test_plain_gate_is_the_sigmoid_of_the_text():
  x = jax.random.normal(jax.random.key(0), (1, 10, 10, 8))
  block = AOTBlock(gate_norm='none')
  variables = jax.jit(block.init)(jax.random.key(1), x)
  apply = jax.jit(lambda v, x: block.apply(v, x, mutable=['intermediates']))
  out, inner = apply(variables, x)
  gate = inner['intermediates']['opening'][0]
  assert 0.2 < float(gate.min()) and float(gate.max()) < 0.8  # narrow kernels: logits near zero
  normalised = jax.jit(AOTBlock().apply)(variables, x)
  assert float(jnp.abs(normalised - out).max()) > 0.1


def test_gate_of_a_constant_channel_is_closed_and_has_gradients():
  x = np.full((1, 4, 4, 1), 2, np.float32)
  gradient, gate = jax.jit(jax.grad(lambda x: (gate_norm(x).sum(), gate_norm(x)), has_aux=True))(x)
  assert np.isfinite(gradient).all()
  np.testing.assert_allclose(gate, -5.0)


def test_bad_settings_are_named():
  x = jnp.zeros((1, 10, 10, 6))
  with pytest.raises(ValueError, match='6 channels do not divide among 4'):
    AOTBlock().init(jax.random.key(0), x)
  with pytest.raises(ValueError, match="'softmax' must be"):
    AOTBlock(rates=(1, 2), gate_norm='softmax').init(jax.random.key(0), x)
