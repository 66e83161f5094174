"""LPIPS against the reference outputs, and how its weights are found and refused."""

import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint.features import lpips
from jaxinpaint.weights import hub


@goldens.cases('lpips_alex', 'lpips_vgg', 'lpips_squeeze')
def test_distances_equal_the_reference(case, tmp_path):
  net, data, state = case.name.removeprefix('lpips_'), case.data(), case.state()
  trunk = {
    re.sub(r'^net\.slice\d+', 'features', k): v for k, v in state.items() if k.startswith('net.')
  }
  heads = {k: v for k, v in state.items() if k.startswith('lin')}
  save_file(trunk | {'classifier.1.weight': np.zeros((4, 4), np.float32)}, tmp_path / 'trunk')
  save_file(heads, tmp_path / 'heads')
  save_file(state, tmp_path / 'whole')
  params = lpips.load(net, tmp_path / 'trunk', tmp_path / 'heads')
  whole = lpips.load(net, tmp_path / 'whole', tmp_path / 'whole')
  jax.tree.map(np.testing.assert_array_equal, params, whole)

  a, b = (jnp.asarray(goldens.nhwc(data[k]) + 1) / 2 for k in ('in0', 'in1'))
  got = jax.jit(lambda p, a, b: lpips.layer_distances(p, a, b, net=net))(params, a, b)
  want = np.stack([data[f'layer_{i}'].reshape(-1) for i in range(len(lpips.CHANNELS[net]))], -1)
  # The values are of the order of a thousandth: 1e-4 would let half of a layer be wrong.
  goldens.assert_close(got, want, atol=1e-6, what='layers')
  goldens.assert_close(got.sum(-1), data['value'].reshape(-1), atol=1e-6, what='distance')


def test_equal_images_have_distance_and_gradient_zero(alex):
  image = jax.random.uniform(jax.random.key(0), (1, 33, 40, 3))
  grey = jnp.full_like(image, 0.485)
  dark = jax.tree.map(lambda x: x, alex)
  dark['trunk'] = jax.tree.map(jnp.zeros_like, alex['trunk'])  # all features are zero
  value = jax.jit(jax.value_and_grad(lambda p, a, b: lpips.distance(p, a, b, net='alex').sum(), 1))
  for weights, a in ((alex, image), (alex, grey), (dark, image)):
    distance, gradient = value(weights, a, a)
    assert distance < 1e-10 and bool(jnp.isfinite(gradient).all())
  distance, gradient = value(alex, image, grey)
  assert distance > 0 and bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_diversity_is_the_mean_over_all_pairs(alex):
  samples = jax.random.uniform(jax.random.key(1), (2, 4, 33, 40, 3))
  samples = samples.at[1, 1:].set(samples[1, :1])  # the second input's samples are all alike
  got = jax.jit(lambda p, x: lpips.diversity(p, x, net='alex'))(alex, samples)
  left, right = np.triu_indices(4, 1)
  pairs = jax.jit(lambda p, a, b: lpips.distance(p, a, b, net='alex'))(
    alex, samples[0, left], samples[0, right]
  )
  assert float(pairs.mean()) > 0.01
  np.testing.assert_allclose(got, [pairs.mean(), 0], rtol=1e-5, atol=1e-7)
  with pytest.raises(ValueError, match='at least 2 of each input, not 1'):
    lpips.diversity(alex, samples[:, :1], net='alex')


def test_pooling_lets_the_last_window_hang_over():
  x = jnp.arange(6.0)[None, None, :, None] * jnp.ones((1, 6, 1, 1))
  np.testing.assert_array_equal(lpips._max_pool_ceil(x)[0, 0, :, 0], [2, 4, 5])
  np.testing.assert_array_equal(lpips._max_pool_ceil(x[:, :5, :5])[0, :, :, 0], [[2, 4]] * 2)


def test_what_cannot_be_is_named(alex, tmp_path, monkeypatch):
  image = jnp.zeros((1, 16, 40, 3))
  with pytest.raises(ValueError, match="no net 'resnet'; there are: alex, vgg, squeeze"):
    lpips.distance(alex, image, image, net='resnet')
  with pytest.raises(ValueError, match='16 x 40 are too small for LPIPS with alex'):
    lpips.distance(alex, image, image, net='alex')
  with pytest.raises(ValueError, match='of one shape'):
    lpips.distance(alex, image, image[:, :, :30], net='alex')
  with pytest.raises(FileNotFoundError, match="the heads's weights"):
    save_file({'a': np.zeros(1)}, tmp_path / 'a')
    lpips.load('alex', tmp_path / 'a', tmp_path / 'b')
  with pytest.raises(ValueError, match=r'trunk of LPIPS with alex(.|\n)*features\.0\.weight'):
    lpips.load('alex', tmp_path / 'a', tmp_path / 'a')


def test_offline_the_address_and_the_folder_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  monkeypatch.setenv('no_proxy', '*')
  url = 'http://127.0.0.1:9/weights/v0.1/alex.pth'  # nobody listens on the discard port
  monkeypatch.setitem(lpips.HEADS, 'alex', (url, lpips.HEADS['alex'][1]))
  (tmp_path / 'trunk').touch()
  with pytest.raises(hub.DownloadError) as error:
    lpips.require('alex', tmp_path / 'trunk')
  assert url in str(error.value) and str(tmp_path / 'lpips_v0.1' / 'alex.pth') in str(error.value)


def test_published_trunks_carry_their_digest():
  for url, digest in lpips.TRUNKS.values():
    assert url.endswith(f'-{digest[:8]}.pth')
  for net, (url, digest) in lpips.HEADS.items():
    assert url.endswith(f'/v0.1/{net}.pth') and len(digest) == 64
