"""The dilated ResNet-50 and its perceptual loss against the reference outputs, and its file."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint.features import resnet_dilated


@goldens.cases('lama_resnetpl')
def test_features_and_loss_equal_the_reference(case):
  data = case.data()
  variables = resnet_dilated.convert(case.state())
  out, target = (jnp.asarray(goldens.nhwc(data[k])) for k in ('pred', 'target'))

  @jax.jit
  def run(variables, out, target):
    loss = resnet_dilated.perceptual(variables, out, target)
    return resnet_dilated.apply(variables, out), resnet_dilated.apply(variables, target), loss

  features, wanted, loss = run(variables, out, target)
  for i, (feature, other) in enumerate(zip(features, wanted, strict=True)):
    goldens.assert_close(goldens.nchw(feature)[:, ::32], data[f'feat_{i}'], what=f'stage {i}')
    # Squared differences of 1e-5: hence relative.
    np.testing.assert_allclose(jnp.square(feature - other).mean(), data['per_map'][i], rtol=1e-3)
  np.testing.assert_allclose(loss, data['loss'][0], rtol=1e-3)


def tiny():
  net = resnet_dilated.ResNetDilated(4, ((1, 1, 1, 1), (2, 2, 1, 1), (2, 1, 1, 2)))
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)  # positive, because running variances are among them
  return net, jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


def test_no_gradient_reaches_the_target(monkeypatch):
  net, variables = tiny()
  monkeypatch.setattr(resnet_dilated, 'ResNetDilated', lambda dtype: net)
  out, target = jax.random.uniform(jax.random.key(1), (2, 1, 32, 32, 3))
  loss = jax.jit(jax.value_and_grad(resnet_dilated.perceptual, (1, 2)))
  value, (to_out, to_target) = loss(variables, out, target)
  assert value > 0 and float(jnp.abs(to_out).max()) > 0 and not np.any(to_target)
  assert float(loss(variables, out, out)[0]) == 0


def test_what_is_missing_is_named_with_its_address(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  with pytest.raises(FileNotFoundError, match=r'Get ade20k/.*encoder_epoch_20\.pth with "mkdir'):
    resnet_dilated.load()
  save_file({'conv1.weight': np.zeros((4, 3, 3, 3), np.float32)}, tmp_path / 'x.safetensors')
  with pytest.raises(ValueError, match='does not hold the weights of the encoder'):
    resnet_dilated.load(tmp_path / 'x.safetensors')
  shapes = resnet_dilated.load(shapes_only=True)
  assert shapes['params']['conv1']['kernel'].shape == (3, 3, 3, 64)
