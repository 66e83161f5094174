"""VGG against the reference's features, and how its weights are found."""

import goldens
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxinpaint.features import vgg


def _write_torchvision_keys(path, state):
  save_file({k: v for k, v in state.items() if k.startswith('features.')}, path)
  return path


@goldens.cases('edgeconnect_losses')
def test_vgg19_features_equal_the_reference(case, tmp_path):
  data = case.data()
  file = _write_torchvision_keys(tmp_path / 'vgg19.safetensors', case.state())
  params = vgg.load(19, file)
  image = jnp.asarray(goldens.nhwc(data['image'][:1]))
  layers = ('relu2_2', 'relu3_1', 'relu5_1')
  found = vgg.apply(params, image, layers, depth=19, normalize=False)
  assert found['relu3_1'].dtype == jnp.float32

  want = data['vgg_relu3_1_b0']
  goldens.assert_close(goldens.nchw(found['relu3_1'])[:, ::8], want, what='relu3_1')
  goldens.assert_close(goldens.nchw(found['relu5_1']), data['vgg_relu5_1_b0'], what='relu5_1')
  x = np.asarray(found['relu2_2'][0], np.float64)
  h, w, c = x.shape
  gram = np.einsum('hwi,hwj->ij', x, x) / (c * h * w)
  goldens.assert_close(gram, data['gram_relu2_2_b0'], what='gram relu2_2')
