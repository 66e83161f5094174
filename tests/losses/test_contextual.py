import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxinpaint.features import vgg
from jaxinpaint.losses import contextual


@pytest.mark.parametrize('form', ['plain', 'blocks'])
@goldens.cases('seresnet_cx_contextual_loss')
def test_loss_and_gradient(case, form, monkeypatch):
  monkeypatch.setattr(contextual, 'BLOCK_ELEMENTS', 5000)  # several blocks, the last not full
  data = case.data()
  x, y = goldens.nhwc(data['generated']), goldens.nhwc(data['target'])
  similarity = jax.jit(lambda x, y: contextual.similarity(x, y, form=form))
  goldens.assert_close(similarity(x, y), data['cx'], 1e-5)
  goldens.assert_close(similarity(y, x), data['cx_swapped'], 1e-5)
  narrow = contextual.similarity(x, y, h=0.1, form=form)
  goldens.assert_close(narrow, data['cx_h01'], 1e-5)
  loss = jax.jit(jax.value_and_grad(lambda x: contextual.contextual_loss(x, y, form=form)))
  value, gradient = loss(x)
  goldens.assert_close(value, data['loss'], 1e-5)
  want = data['grad_generated']
  goldens.assert_close(goldens.nchw(gradient), want, 1e-5 * np.abs(want).max(), 'gradient')


@goldens.cases('seresnet_cx_contextual_vgg16')
def test_loss_on_features_of_vgg16(case, tmp_path):
  data = case.data()
  safetensors.numpy.save_file(case.state(), tmp_path / 'vgg16.safetensors')
  params = vgg.load(16, tmp_path / 'vgg16.safetensors')
  layers = ('relu3_2', 'relu4_2')
  target = vgg.apply(params, goldens.nhwc(data['target']), layers, depth=16)

  def loss(image, params):  # as constants, the weights would be compiled, too
    found = vgg.apply(params, image, layers, depth=16)
    values = {n: contextual.similarity(found[n], target[n]) for n in layers}
    return -sum(jnp.log(v).mean() for v in values.values()), (values, found['relu4_2'])

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, (values, feature)), gradient = step(goldens.nhwc(data['generated']), params)
  goldens.assert_close(goldens.nchw(feature)[:, ::16], data['relu4_2'], what='relu4_2')
  for name in layers:
    goldens.assert_close(values[name], data[f'cx_{name}'], 1e-5, name)
  goldens.assert_close(value, data['loss'], 1e-4, 'loss')
  want = data['grad_generated']
  gradient = goldens.nchw(gradient)[:, :, ::2, ::2]
  # A pool whose two largest inputs differ by rounding alone hands its gradient to either of them,
  # and then a patch of the picture differs.
  error = np.abs(gradient - want) / np.abs(want).max()
  assert np.quantile(error, 0.95) < 1e-4 and np.median(error) < 1e-5
  assert np.linalg.norm(gradient - want) < 0.05 * np.linalg.norm(want)


@pytest.mark.parametrize('swapped', [False, True])
def test_both_forms_are_equal_and_so_are_their_gradients(swapped, monkeypatch):
  monkeypatch.setattr(contextual, 'BLOCK_ELEMENTS', 700)
  x, y = (jax.random.normal(jax.random.key(i), (2, 7 + i, 9, 6)) for i in range(2))
  x = x.at[:, 3:5].set(x[:, :2])  # equal features: ties of the maxima

  def value(form):
    def loss(x, y):
      pair = (y, x) if swapped else (x, y)
      return contextual.contextual_loss(*pair, form=form)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, y)

  (plain, gradients), (blocks, others) = value('plain'), value('blocks')
  assert float(plain) == pytest.approx(float(blocks), abs=1e-6)
  for a, b in zip(gradients, others, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_identical_features_in_any_order_cost_nothing_and_collapsed_ones_cost_most():
  y = jax.random.normal(jax.random.key(0), (1, 6, 6, 16))
  shuffled = jax.random.permutation(jax.random.key(1), y.reshape(1, 36, 16), axis=1)
  loss = jax.jit(contextual.contextual_loss)
  same = loss(shuffled.reshape(y.shape), y)
  assert float(same) == pytest.approx(0.0, abs=1e-3)
  # One feature for all positions: its row sums to 1 over 36 targets.
  collapsed = loss(jnp.broadcast_to(y[:, :1, :1], y.shape), y)
  assert float(collapsed) == pytest.approx(np.log(36), abs=0.05)


def test_many_scores_are_not_held_at_once():
  shape = jax.ShapeDtypeStruct((4, 40, 40, 32), jnp.float32)

  def temporary(form):
    loss = lambda x, y: contextual.contextual_loss(x, y, form=form)
    compiled = jax.jit(jax.grad(loss)).lower(shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  scores = 4 * 1600 * 1600 * 4
  assert temporary('blocks') < scores < temporary('plain')
  assert temporary(None) == temporary('blocks')


def test_constant_features_have_a_finite_gradient():
  x = jnp.ones((1, 4, 4, 3))
  value, gradient = jax.jit(jax.value_and_grad(contextual.contextual_loss))(x, x)
  assert np.isfinite(value) and not np.any(gradient)


def test_what_makes_no_sense_is_refused():
  x = jnp.zeros((1, 4, 4, 3))
  with pytest.raises(ValueError, match='same B and C'):
    contextual.similarity(x, x[..., :2])
  with pytest.raises(ValueError, match='must be positive'):
    contextual.similarity(x, x, h=0)
  with pytest.raises(ValueError, match="'plain' or 'blocks'"):
    contextual.similarity(x, x, form='rows')
