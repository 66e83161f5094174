import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.losses import contextual, id_mrf
from jaxinpaint.weights import mapping


@pytest.mark.parametrize('form', ['plain', 'blocks'])
@goldens.cases('gmcnn_idmrf_features')
def test_loss_and_gradient(case, form, monkeypatch):
  monkeypatch.setattr(contextual, 'BLOCK_ELEMENTS', 5000)  # several blocks, the last not full
  data = case.data()
  pred, target = goldens.nhwc(data['gen']), goldens.nhwc(data['tar'])
  loss = jax.jit(jax.value_and_grad(lambda *x: id_mrf.id_mrf(*x, form=form), (0, 1)))
  value, (gradient, of_target) = loss(pred, target)
  goldens.assert_close(value, data['loss'], what='loss')
  want = data['grad_gen']
  goldens.assert_close(goldens.nchw(gradient), want, 1e-4 * np.abs(want).max(), 'gradient')
  assert not of_target.any()


@goldens.cases('gmcnn_idmrf_vgg19')
def test_loss_on_features_of_vgg19(case):
  data = case.data()
  layers = ('relu3_1', 'relu4_1')
  state = {k: v for k, v in case.state().items() if int(k.split('.')[1]) <= 19}
  entries = [e for e in vgg.torchvision_entries(19) if e.key in state]
  params = mapping.convert(state, entries)['params']['vgg']
  mean = np.asarray(arrays.IMAGENET_MEAN, np.float32)
  run = lambda params, x: vgg.apply(params, x - mean, layers, depth=19, normalize=False)

  def loss(pred, target, params):  # as constants, the weights would be compiled, too
    found, wanted = run(params, pred), run(params, target)
    content = id_mrf.id_mrf_loss(found, wanted, (), layers[1:])
    return id_mrf.id_mrf_loss(found, wanted, layers, layers[1:]), (found, content)

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  images = (goldens.nhwc(data[name]) for name in ('gen', 'tar'))
  (value, (found, content)), gradient = step(*images, params)
  for ours, theirs in zip(layers, ('relu3_2', 'relu4_2'), strict=True):
    goldens.assert_close(goldens.nchw(found[ours])[:, ::16], data[theirs], what=theirs)
  goldens.assert_close(content, data['content_loss'], what='content')
  goldens.assert_close(value - content, data['style_loss'], what='style')
  goldens.assert_close(value, data['loss'], what='loss')
  want = data['grad_gen']
  gradient = goldens.nchw(gradient)[:, :, ::2, ::2]
  # A pool, or a maximum over places, whose two largest inputs differ by rounding alone hands its
  # gradient to either of them, and then a patch of the picture differs.
  error = np.abs(gradient - want) / np.abs(want).max()
  assert np.quantile(error, 0.95) < 1e-3 and np.median(error) < 1e-4
  assert np.linalg.norm(gradient - want) < 0.05 * np.linalg.norm(want)


def test_by_hand():
  # Two places, two channels. Without the mean over channels all features are (a, -a), so cosines
  # are 1 or -1, and distances 0 or 1.
  target = jnp.array([[[[3.0, 1.0], [1.0, 3.0]]]])
  run = jax.jit(id_mrf.id_mrf)
  loss = lambda pred: float(run(pred, target))
  assert loss(target) == pytest.approx(0, abs=1e-5)  # each target has an output of its own
  same = jnp.array([[[[3.0, 1.0], [4.0, 0.0]]]])  # both like the first: the second gets nothing
  assert loss(same) == pytest.approx(np.log(2), abs=1e-5)
  two = jnp.concatenate([same, same])
  both = float(id_mrf.id_mrf(two, jnp.concatenate([target, target])))
  assert both == pytest.approx(2 * np.log(2), abs=1e-5)  # a sum over the batch
  features = {'a': same, 'b': target}, {'a': target, 'b': target}
  counted = float(id_mrf.id_mrf_loss(*features, ('a', 'b'), ('a',)))
  assert counted == pytest.approx(2 * np.log(2), abs=1e-5)


def test_features_that_do_not_fit_or_are_zero():
  x = jnp.ones((1, 4, 4, 3))
  with pytest.raises(ValueError, match='the same places'):
    id_mrf.id_mrf(x, x[:, :2])
  with pytest.raises(ValueError, match="'image' or 'place'"):
    contextual.similarity(x, x, centre='middle')
  value, gradient = jax.jit(jax.value_and_grad(lambda y: id_mrf.id_mrf(y, x)))(x)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_many_scores_are_not_held_at_once():
  # Features of a picture of 512 pixels: its scores alone would be 1 GiB.
  shape = jax.ShapeDtypeStruct((1, 128, 128, 8), jnp.float32)
  compiled = jax.jit(jax.grad(id_mrf.id_mrf)).lower(shape, shape).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 2**29
