"""ArcFace's network and the identity loss against the reference outputs, and its file."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint import arrays
from jaxinpaint.features import arcface


def test_parameter_count_is_the_published_one():
  shapes = jax.eval_shape(
    arcface.Backbone().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)
  )
  assert sum(int(np.prod(s.shape)) for s in jax.tree.leaves(shapes['params'])) == 43_797_696


@goldens.cases('arcface_irse50')
def test_the_network_equals_the_reference(case):
  data = case.data()
  variables = arcface.convert(case.state())
  x = jnp.asarray(goldens.nhwc(data['x']))
  emb, body = jax.jit(run)(variables, x)
  goldens.assert_close(goldens.nchw(body)[:1, : data['body'].shape[1]], data['body'], what='body')
  goldens.assert_close(emb, data['emb'], what='embedding')


def run(variables, x):
  emb, seen = arcface.Backbone().apply(
    variables, x, capture_intermediates=lambda module, _: module.name == 'body'
  )
  return emb, seen['intermediates']['body']['__call__'][0][-1]


@goldens.cases('arcface_id_loss')
def test_the_identity_loss_equals_the_reference(case):
  data = case.data()
  variables = arcface.convert(case.state())
  out, target = (jnp.asarray(goldens.nhwc(data[k]) + 1) / 2 for k in ('y_hat', 'y'))
  pooled = goldens.nchw(2 * arcface.cut_face(out) - 1)
  shown = data['pooled'].shape[1]
  goldens.assert_close(pooled[:1, :shown], data['pooled'], what='cut')

  @jax.jit
  def run(variables, out, target):
    loss = arcface.id_loss(variables, out, target)
    return loss, arcface.embed(variables, out), arcface.embed(variables, target)

  loss, got, wanted = run(variables, out, target)
  goldens.assert_close(got, data['emb_hat'], what='embedding of the output')
  goldens.assert_close(wanted, data['emb'], what='embedding of the target')
  goldens.assert_close(loss.reshape(-1), data['loss'], what='loss')


@functools.cache
def tiny():
  """A network of four units on the same interface."""
  net = arcface.Backbone(width=4, depths=(1, 1, 1, 1), features=8)
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
  rng = np.random.default_rng(0)  # positive, because running variances are among them
  return net, jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


def test_no_gradient_reaches_the_target(monkeypatch):
  net, variables = tiny()
  monkeypatch.setattr(arcface, 'Backbone', lambda dtype: net)
  out, target = jax.random.uniform(jax.random.key(1), (2, 1, 64, 64, 3))
  loss = jax.jit(jax.value_and_grad(arcface.id_loss, (1, 2)))
  value, (to_out, to_target) = loss(variables, out, target)
  assert 0 < value < 2 and float(jnp.abs(to_out).max()) > 0 and not np.any(to_target)
  assert abs(float(loss(variables, out, out)[0])) < 1e-5


def test_faces_are_cut_in_proportion_to_their_size():
  ramp = jnp.broadcast_to(jnp.arange(512.0)[None, :, None, None], (1, 512, 512, 3))
  got = arcface.cut_face(ramp)
  assert got.shape == (1, 112, 112, 3)
  np.testing.assert_allclose(got.mean(), (70 + 445) / 2, atol=0.5)


def test_adaptive_average_by_hand():
  x = jnp.arange(5.0)[None, :, None, None]
  got = arrays.adaptive_avg_pool(x, 3, 2)[0, :, :, 0]
  np.testing.assert_allclose(got, np.array([[0.5, 2.0, 3.5]] * 2).T)  # rows 0-1, 1-3, 3-4


def test_where_the_file_is_looked_for(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  with pytest.raises(FileNotFoundError, match='gdown') as error:
    arcface.require()
  assert str(tmp_path / 'model_ir_se50.pth') in str(error.value)
  save_file({'input_layer.0.weight': np.zeros((1, 1, 1, 1))}, tmp_path / 'model_ir_se50.pth')
  assert arcface.require() == tmp_path / 'model_ir_se50.pth'
  with pytest.raises(ValueError, match=r'not hold the weights of IR-SE50(.|\n)*input_layer\.1'):
    arcface.load()
