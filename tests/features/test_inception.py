"""FID's Inception against the reference outputs, and what it refuses."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint.features import inception


@goldens.cases('fid_inception')
def test_features_equal_the_reference(case, tmp_path):
  data = case.data()
  save_file(case.state(), tmp_path / 'inception.safetensors')
  variables = inception.load(tmp_path / 'inception.safetensors')
  run = jax.jit(lambda v, x: inception.features(v, x, tuple(inception.OUTPUTS)))
  found = run(variables, goldens.nhwc(data['x']))
  assert {k: v.shape[-1] for k, v in found.items()} == inception.OUTPUTS
  for index, (name, step) in enumerate((('pool1', 8), ('pool2', 16), ('mixed_6e', 16))):
    got = goldens.nchw(found[name])[:, ::step, ::4, ::4]
    goldens.assert_close(got, data[f'block_{index}'], what=name)
  goldens.assert_close(found['pool3'], data['pool3'], what='pool3')
  run = jax.jit(lambda v, x: inception.features(v, x, resize=False))
  alone = run(variables, goldens.nhwc(data['x_noresize']))['pool3']
  goldens.assert_close(alone, data['pool3_noresize'], what='pool3, not resized')


def test_shape_of_the_network_and_its_file():
  shapes = inception.shapes()
  count = lambda tree: sum(np.prod(x.shape) for x in jax.tree.leaves(tree))
  # torchvision's inception_v3 has 23 834 568 without its auxiliary head, of these 2 049 000 in fc.
  assert count(shapes['params']) == 21_785_568
  state = {case.name: case.manifest()['state'] for case in goldens.all_cases()}['fid_inception']
  published = {k for k, _ in state if 'num_batches' not in k and not k.startswith('fc.')}
  assert {e.key for e in inception.entries()} == published
  url, digest = inception.PUBLISHED
  assert url.endswith(f'-{digest}.pth') and len(digest) == 8


def test_pictures_are_resized_and_scaled_as_documented():
  image = np.random.default_rng(0).integers(0, 256, (1, 16, 20, 3), np.uint8)
  x = inception.preprocess(image)
  assert x.shape == (1, 299, 299, 3)
  np.testing.assert_allclose(x, inception.preprocess(image / np.float32(255)), atol=1e-6)
  # Half-pixel centres: the corner of the result lies outside the first centre and repeats it.
  np.testing.assert_allclose(x[0, 0, 0], image[0, 0, 0] / 127.5 - 1, atol=1e-6)
  row = (150 + 0.5) * 16 / 299 - 0.5  # between two rows
  low, part = int(row), row - int(row)
  want = (1 - part) * image[0, low, 0] + part * image[0, low + 1, 0]
  np.testing.assert_allclose(x[0, 150, 0], want / 127.5 - 1, atol=1e-5)
  same = np.asarray(inception.preprocess(image, resize=False))
  np.testing.assert_allclose(same, image / 127.5 - 1, atol=1e-6)


def test_other_files_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'Inception weights: .*nowhere is not a file'):
    inception.load(tmp_path / 'nowhere')
  save_file({'features.0.weight': np.zeros((64, 3, 3, 3), np.float32)}, tmp_path / 'vgg')
  with pytest.raises(ValueError, match=r"FID's Inception(.|\n)*Conv2d_1a_3x3\.conv\.weight"):
    inception.load(tmp_path / 'vgg')
  save_file({'fc.weight': np.zeros((1000, 2048), np.float32)}, tmp_path / 'torchvision')
  with pytest.raises(ValueError, match=r'with 1000 classes, not 1008.*fetch fid-inception'):
    inception.load(tmp_path / 'torchvision')
  (tmp_path / 'page').write_text('<html>not found</html>')
  with pytest.raises(ValueError, match='web page'):
    inception.load(tmp_path / 'page')
  with pytest.raises(ValueError, match='32 x 80 are too small'):
    inception.features({}, jnp.zeros((1, 32, 80, 3)), resize=False)
  with pytest.raises(ValueError, match=r"no outputs .'pool4'.; choose of: pool1"):
    inception.features({}, jnp.zeros((1, 80, 80, 3)), ('pool4',))
