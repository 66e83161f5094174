import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import arrays
from jaxinpaint.systems.jpgnet import networks, published
from jaxinpaint.weights import mapping


@goldens.cases('jpgnet_fusion')
def test_the_whole_path(case):
  data, state = case.data(), case.state()
  image, mask, generated = (goldens.nhwc(data[k]) for k in ('image', 'mask', 'generated'))
  params = {}
  for name in ('kpn1', 'kpn2'):
    own = {k.removeprefix(f'{name}.'): v for k, v in state.items() if k.startswith(f'{name}.')}
    tree = mapping.convert(own, published.kpn_entries({}, name), published.IGNORE)
    params[name] = {'params': tree['params'][name]}
  apply = jax.jit(networks.FilteringNetwork().apply)
  damaged = image * (1 - mask)
  first = apply(params['kpn1'], damaged, damaged)
  # The reference in float32 is itself 1.1e-5 away from float64 for outputs of deviation 2.6, and
  # the fusion's go up to 22: the specified tolerance.
  atol = 2e-4
  close = lambda got, want, what: goldens.assert_close(goldens.nchw(got), want, atol, what=what)
  close(first['out'], data['kpn1_out'], 'filtered')
  uncertainty = networks.uncertainty_map(first['kernels'], 'whole_batch')
  close(uncertainty, data['uncertainty'], 'uncertainty')
  filtered = arrays.compose(first['out'], image, mask)
  pasted = arrays.compose(generated, image, mask)
  binary = networks.binary_fusion(jnp.ones_like(mask), jnp.zeros_like(mask), uncertainty)
  close(binary, data['binary'], 'binary')
  pair = jnp.concatenate([pasted, filtered], -1)
  second = apply(params['kpn2'], jnp.concatenate([pair, first['kernels'], uncertainty], -1), pair)
  close(second['out'], data['kpn2_out'], 'fused')
  close(arrays.compose(second['out'], image, mask), data['final'], 'final')
  for found, want in ((first, data['core1_b0']), (second, data['core2_b0'])):
    kernels = goldens.nchw(found['kernels'])[: len(want)]  # the first sample, every n-th channel
    step = -(-kernels.shape[1] // want.shape[1])
    goldens.assert_close(kernels[:, ::step], want, atol, what='kernels')


def test_uncertainty_of_each_picture_alone_and_of_flat_ones():
  kernels = jnp.stack([jnp.arange(12.0).reshape(2, 3, 2), jnp.full((2, 3, 2), 3.0)])
  alone = networks.uncertainty_map(kernels)
  np.testing.assert_allclose(alone[0].ravel(), np.arange(6) / 5, rtol=1e-6)
  assert not alone[1].any()
  together = networks.uncertainty_map(kernels, 'whole_batch')
  np.testing.assert_allclose(together[1].ravel(), 2.5 / 10, rtol=1e-6)
  assert not networks.uncertainty_map(kernels[1:], 'whole_batch').any()
  slope = jax.grad(lambda k: networks.uncertainty_map(k).sum())(kernels)
  assert np.isfinite(slope).all()


def test_parameter_counts_are_the_published_ones():
  def count(channels_in, channels):
    x = jnp.zeros((1, 16, 16, channels_in))
    found = jax.eval_shape(
      networks.FilteringNetwork().init, jax.random.key(0), x, x[..., :channels]
    )
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(found))

  unused = 3 * 6 + 3  # conv_fusion
  assert count(3, 3) + unused == 27_395_427
  assert count(34, 6) == 27_548_256


def test_sides_must_be_multiples_of_16():
  x = jnp.zeros((1, 16, 24, 3))
  with pytest.raises(ValueError, match='width 24 must be a multiple of 16'):
    networks.FilteringNetwork().init(jax.random.key(0), x, x)
