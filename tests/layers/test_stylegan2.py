"""StyleGAN2's blocks against the reference outputs, and what a wrong one would break."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxinpaint.layers import stylegan2
from jaxinpaint.weights import mapping

BLUR_KERNELS = (r'\.kernel$',)


@goldens.cases('stylegan2_upfirdn2d')
def test_upfirdn2d(case):
  data = case.data()
  x = jnp.asarray(goldens.nhwc(data['x']))
  blur, strong = stylegan2.fir_taps(), stylegan2.fir_taps(gain=4.0)
  runs = {
    'up2': (strong, dict(up=2, pad=(2, 1))),
    'down2': (blur, dict(down=2, pad=(1, 1))),
    'down2_k3conv': (blur, dict(down=2, pad=(2, 2))),
    'blur_up': (strong, dict(pad=(1, 1))),
    'blur_down': (blur, dict(pad=(2, 2))),
    'asym': (data['k_asym'], dict(up=2, down=3, pad=(3, 2))),
    'negpad': (blur, dict(pad=(-1, 2))),
  }
  outer = {k: (np.outer(t, t), options) for k, (t, options) in runs.items() if t.ndim == 1}
  for case_runs in (runs, outer):  # a row of taps stands for its outer product
    found = jax.jit(
      lambda x, runs=case_runs: {
        name: stylegan2.upfirdn2d(x, taps, **options) for name, (taps, options) in runs.items()
      }
    )(x)
    for name, got in found.items():
      goldens.assert_close(goldens.nchw(got), data[name], what=name)


@pytest.mark.parametrize(
  'options', [dict(up=2, pad=(2, 1)), dict(down=2, pad=(1, 1)), dict(pad=(2, 2)), dict(pad=(-1, 2))]
)
def test_second_derivatives_of_upfirdn2d_are_those_of_a_depthwise_convolution(options):
  """As R1 needs them: the derivative of the gradient's squared length."""
  taps = np.array([0.5, -1.0, 2.0, 0.25], np.float32)  # not symmetric
  up, down, (low, high) = options.get('up', 1), options.get('down', 1), options['pad']

  def plain(x):
    kernel = jnp.broadcast_to(np.outer(taps, taps)[::-1, ::-1, None, None], (4, 4, 1, 3))
    padding = [(low, high + up - 1)] * 2
    return lax.conv_general_dilated(
      x,
      kernel,
      (down, down),
      padding,
      lhs_dilation=(up, up),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=3,
      precision='highest',
    )

  def penalty(form, x, w):
    value = lambda x: jnp.tanh(form(jnp.sin(x) * w)).sum()
    return jnp.square(jax.grad(value)(x)).sum()

  x, w = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(((2, 7, 6, 3), (3,))))
  ours = lambda x: stylegan2.upfirdn2d(x, taps, **options)
  found, want = (
    jax.jit(jax.value_and_grad(functools.partial(penalty, form), argnums=(0, 1)))(x, w)
    for form in (ours, plain)
  )
  assert float(want[0]) > 1
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, want)


def modulated_entries(key, path):
  return (
    mapping.Entry(f'{key}.weight', 'n', (*path, 'kernel'), 'modulated_conv'),
    *mapping.dense(f'{key}.modulation', 'n', (*path, 'modulation')),
  )


@goldens.cases('stylegan2_modulated_conv')
def test_modulated_convolutions(case):
  data = case.data()
  entries = [e for n in ('plain', 'up', 'down', 'rgb') for e in modulated_entries(n, (n,))]
  entries += modulated_entries('styled.conv', ('styled', 'conv'))
  entries += modulated_entries('torgb.conv', ('torgb', 'conv'))
  entries += [
    mapping.Entry('styled.noise.weight', 'n', ('styled', 'noise_weight')),
    mapping.Entry('styled.activate.bias', 'n', ('styled', 'bias')),
    mapping.Entry('torgb.bias', 'n', ('torgb', 'bias'), 'channels'),
  ]
  params = mapping.convert(case.state(), entries, BLUR_KERNELS)['params']['n']
  features = params['plain']['kernel'].shape[-1]
  x, noise, skip = (jnp.asarray(goldens.nhwc(data[k])) for k in ('x', 'noise', 'skip'))
  style = data['style']

  @jax.jit
  def run(params):
    conv = stylegan2.ModulatedConv
    apply = lambda name, module, *inputs: module.apply({'params': params[name]}, *inputs)
    found = {
      'plain': apply('plain', conv(features), x, style),
      'up': apply('up', conv(features, up=True), x, style),
      'down': apply('down', conv(features, down=True), x, style),
      'rgb': apply('rgb', conv(3, 1, demodulate=False), x, style),
      'styled': apply('styled', stylegan2.StyledConv(features, up=True), x, style, noise),
    }
    return found | {'torgb': apply('torgb', stylegan2.ToRGB(), found['styled'], style, skip)}

  for name, got in run(params).items():
    goldens.assert_close(goldens.nchw(got), data[name], what=name)


def test_doubling_and_halving_at_once_is_refused():
  x, kernel, style = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 2)), jnp.zeros((1, 2))
  with pytest.raises(ValueError, match='double and halve'):
    stylegan2.modulated_conv2d(x, kernel, style, up=True, down=True)


def test_minibatch_deviation_by_hand():
  x = jnp.arange(8.0)[:, None, None, None] ** 2 * jnp.ones((1, 2, 2, 3))
  got = jax.jit(stylegan2.minibatch_stddev)(x)
  assert got.shape == (8, 2, 2, 4)
  squares = np.arange(8.0) ** 2
  for i in range(8):  # samples 0, 2, 4, 6 are one group
    np.testing.assert_allclose(got[i, :, :, 3], squares[i % 2 :: 2].std(), rtol=1e-5)
  assert stylegan2.minibatch_stddev(x[:3]).shape == (3, 2, 2, 4)
  with pytest.raises(ValueError, match='a batch of 6 cannot be divided into groups of 4'):
    stylegan2.minibatch_stddev(x[:6])


def test_a_picture_smaller_than_the_filter_is_named():
  with pytest.raises(ValueError, match='2 samples, padding included, are fewer than 4 taps'):
    stylegan2.upfirdn2d(jnp.zeros((1, 2, 8, 1)), stylegan2.fir_taps())
