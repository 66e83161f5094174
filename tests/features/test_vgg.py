"""VGG against the reference's features, and how its weights are found and refused."""

import goldens
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint.features import vgg
from jaxinpaint.weights import hub

CONVOLUTIONS_16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@goldens.cases('edgeconnect_losses')
def test_vgg19_features_equal_the_reference(case, tmp_path):
  data = case.data()
  state = {k: v for k, v in case.state().items() if k.startswith('features.')}
  save_file(state, tmp_path / 'vgg19.safetensors')
  params = vgg.load(19, tmp_path / 'vgg19.safetensors')
  image = jnp.asarray(goldens.nhwc(data['image'][:1]))
  layers = ('relu2_2', 'relu3_1', 'relu5_1')
  found = vgg.apply(params, image, layers, depth=19, normalize=False)

  goldens.assert_close(
    goldens.nchw(found['relu3_1'])[:, ::8], data['vgg_relu3_1_b0'], what='relu3_1'
  )
  goldens.assert_close(goldens.nchw(found['relu5_1']), data['vgg_relu5_1_b0'], what='relu5_1')
  x = np.asarray(found['relu2_2'][0], np.float64)
  h, w, c = x.shape
  gram = np.einsum('hwi,hwj->ij', x, x) / (c * h * w)
  goldens.assert_close(gram, data['gram_relu2_2_b0'], what='gram relu2_2')


@pytest.fixture(scope='module')
def state16():
  """A VGG16 state dict with torchvision's keys and shapes."""
  rng, state, last = np.random.default_rng(0), {}, 3
  widths = (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6
  for index, width in zip(CONVOLUTIONS_16, widths, strict=True):
    kernel = rng.standard_normal((width, last, 3, 3), np.float32) * (2 / 9 / last) ** 0.5
    state[f'features.{index}.weight'] = kernel
    state[f'features.{index}.bias'] = rng.standard_normal(width).astype(np.float32) * 0.1
    last = width
  return state


@pytest.fixture(scope='module')
def file16(state16, tmp_path_factory):
  path = tmp_path_factory.mktemp('vgg') / 'vgg16.safetensors'
  save_file(state16 | {'classifier.0.weight': np.zeros((4, 4), np.float32)}, path)
  return path


@pytest.fixture(scope='module')
def params16(file16):
  return vgg.load(16, file16)


def test_names_and_shapes(params16):
  assert vgg.layer_names(16)[:3] == ('relu1_1', 'relu1_2', 'pool1')
  assert vgg.layer_names(16)[-2:] == ('relu5_3', 'pool5')
  assert len(vgg.layer_names(16)) == 18 and len(vgg.layer_names(19)) == 21
  found = vgg.apply(params16, jnp.ones((1, 34, 32, 3)), ('pool1', 'relu2_1', 'pool3'), depth=16)
  shapes = {k: v.shape for k, v in found.items()}
  assert shapes == {'pool1': (1, 17, 16, 64), 'relu2_1': (1, 17, 16, 128), 'pool3': (1, 4, 4, 256)}


def test_first_layer_by_hand(params16, state16):
  rng = np.random.default_rng(1)
  image = rng.random((1, 4, 4, 3)).astype(np.float32)
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  kernel, bias = state16['features.0.weight'], state16['features.0.bias']
  for normalize, x in ((False, image), (True, (image - mean) / std)):
    got = vgg.apply(params16, image, ('relu1_1',), depth=16, normalize=normalize)['relu1_1']
    patch = x[0, :3, 1:4]  # under the kernel at row 1, column 2
    want = np.maximum(np.einsum('hwi,oihw->o', patch, kernel) + bias, 0)
    np.testing.assert_allclose(got[0, 1, 2], want, atol=1e-5)


def test_features_before_an_activation(params16, file16):
  image = jnp.asarray(np.random.default_rng(3).random((1, 8, 8, 3)), jnp.float32)
  found = vgg.apply(params16, image, ('relu1_2', 'conv2_1', 'relu2_1'), depth=16)
  assert sorted(found) == ['conv2_1', 'relu1_2', 'relu2_1'] and (found['conv2_1'] < 0).any()
  np.testing.assert_array_equal(np.maximum(found['conv2_1'], 0), found['relu2_1'])
  used = vgg.load_down_to(('relu1_1', 'conv2_1'), 16, file16)
  assert list(used) == ['conv1_1', 'conv1_2', 'conv2_1']
  np.testing.assert_array_equal(
    vgg.apply(used, image, ('conv2_1',), depth=16)['conv2_1'], found['conv2_1']
  )


def test_nothing_deeper_than_asked_is_computed(params16):
  shallow = {k: params16[k] for k in ('conv1_1', 'conv1_2')}
  image = jnp.ones((1, 8, 8, 3))
  found = vgg.apply(shallow, image, ('relu1_2', 'pool1'), depth=16)
  assert sorted(found) == ['pool1', 'relu1_2']
  with pytest.raises(Exception, match='conv2_1'):
    vgg.apply(shallow, image, ('relu2_1',), depth=16)


def test_bfloat16_computes_in_bfloat16_and_returns_float32(params16):
  image = jnp.asarray(np.random.default_rng(2).random((1, 16, 16, 3)), jnp.float32)
  full = vgg.apply(params16, image, ('relu2_2',), depth=16)['relu2_2']
  half = vgg.apply(params16, image, ('relu2_2',), depth=16, dtype=jnp.bfloat16)['relu2_2']
  assert half.dtype == full.dtype == jnp.float32
  error = float(jnp.abs(half - full).mean() / jnp.abs(full).mean())
  assert 0 < error < 0.03


def test_unknown_layers_and_depths(params16):
  image = jnp.ones((1, 8, 8, 3))
  with pytest.raises(ValueError, match=r"VGG16 has no layers \['relu3_4'\]; choose of: relu1_1"):
    vgg.apply(params16, image, ('relu1_1', 'relu3_4'), depth=16)
  with pytest.raises(ValueError, match='depth 11 is not one of'):
    vgg.require(11)


def test_converted_files_are_read_too(params16, tmp_path):
  flat = {f'{k}/{leaf}': v for k, tree in params16.items() for leaf, v in tree.items()}
  save_file({k: np.ascontiguousarray(v) for k, v in flat.items()}, tmp_path / 'x.safetensors')
  again = vgg.load(16, tmp_path / 'x.safetensors')
  for name, tree in params16.items():
    np.testing.assert_array_equal(again[name]['kernel'], tree['kernel'])


def test_another_network_is_refused(file16, state16, tmp_path):
  with pytest.raises(ValueError, match='does not hold the weights of VGG19') as error:
    vgg.load(19, file16)
  assert 'features.34.weight' in str(error.value) and str(file16) in str(error.value)
  save_file({'a': np.zeros(1)}, tmp_path / 'a.safetensors')
  with pytest.raises(ValueError, match=r'features\.0\.weight'):
    vgg.load(16, tmp_path / 'a.safetensors')
  wide = state16 | {'features.0.weight': np.zeros((64, 4, 3, 3), np.float32)}
  save_file(wide, tmp_path / 'wide.safetensors')
  with pytest.raises(ValueError, match=r'\(3, 3, 4, 64\) in the file, \(3, 3, 3, 64\)'):
    vgg.load(16, tmp_path / 'wide.safetensors')
  with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
    vgg.load(16, tmp_path / 'nowhere.pth')


def test_offline_the_address_and_the_folder_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  monkeypatch.setenv('no_proxy', '*')
  url = 'http://127.0.0.1:9/models/vgg19-dcbb9e9d.pth'  # nobody listens on the discard port
  monkeypatch.setitem(vgg.PUBLISHED, 19, (url, 'dcbb9e9d'))
  with pytest.raises(hub.DownloadError) as error:
    vgg.require(19)
  assert url in str(error.value)
  assert str(tmp_path / 'vgg19-dcbb9e9d.pth') in str(error.value)


def test_published_addresses_carry_their_digest():
  for depth, (url, digest) in vgg.PUBLISHED.items():
    assert url == f'https://download.pytorch.org/models/vgg{depth}-{digest[:8]}.pth'
