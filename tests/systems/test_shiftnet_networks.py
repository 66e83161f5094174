"""The networks of Shift-Net against their code's own outputs."""

import functools

import goldens
import initial
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.shift import shift
from jaxinpaint.systems.shiftnet import networks, published
from jaxinpaint.weights import mapping


def variables(case, entries):
  tree = mapping.convert(case.state(), entries)
  (network,) = tree['params']
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


@goldens.cases('shiftnet_generator', 'shiftnet_generator_bn')
def test_generator(case):
  data = case.data()
  norm = 'batch' if case.name.endswith('bn') else 'instance'
  x, mask = goldens.nhwc(data['x']), goldens.nhwc(data['mask'])
  run = jax.jit(networks.Generator(norm=norm).apply)
  found = run(
    variables(case, published.generator_entries(dict(norm=norm))), (x[..., :3] + 1) / 2, mask
  )
  both = np.concatenate([found['former'], found['latter']], -1)
  goldens.assert_close(goldens.nchw(both)[:, ::16], data['shift_in'], what='shift_in')
  got = goldens.nchw(found['shifted'])[:, ::8]
  goldens.assert_close(got, data['shifted'], what='shifted')
  goldens.assert_close(goldens.nchw(2 * found['out'] - 1), data['y'], what='out')


@goldens.cases('shiftnet_face_generator')
def test_face_generator(case):
  data = case.data()
  x, mask = goldens.nhwc(data['x']), goldens.nhwc(data['mask'])
  settings = dict(variant='face', mirror='released')
  run = jax.jit(networks.Generator(**settings).apply)
  found = run(variables(case, published.generator_entries(settings)), (x[..., :3] + 1) / 2, mask)
  goldens.assert_close(goldens.nchw(found['latter'])[:, ::16], data['inner_feat'], what='latter')


@goldens.cases('shiftnet_face_generator')
def test_face_generator_with_the_released_mirror(case):
  data = case.data()
  x, mask = goldens.nhwc(data['x']), goldens.nhwc(data['mask'])
  settings = dict(variant='face', mirror='released')
  run = jax.jit(networks.Generator(**settings).apply)
  found = run(variables(case, published.generator_entries(settings)), (x[..., :3] + 1) / 2, mask)
  got = goldens.nchw(2 * found['out'] - 1)[:, :, ::2, ::2]
  goldens.assert_close(got, data['y_flip'], what='out')


@goldens.cases('shiftnet_discriminator')
def test_discriminator(case):
  data = case.data()
  run = jax.jit(networks.Discriminator().apply)
  logits = run(
    variables(case, published.discriminator_entries({})), (goldens.nhwc(data['x']) + 1) / 2
  )
  goldens.assert_close(goldens.nchw(logits), data['pre_sigmoid'], what='logits')
  goldens.assert_close(goldens.nchw(jax.nn.sigmoid(logits)), data['y'], what='scores')


@goldens.cases('shiftnet_shift_layer')
def test_shift_layer(case):
  data = case.data()
  x, hole = goldens.nhwc(data['x']), networks.feature_hole(goldens.nhwc(data['mask']))
  c = x.shape[-1] // 2

  @functools.partial(jax.jit, static_argnums=2)
  def run(x, g, form):
    def layer(x):
      shifted, _ = shift(x[..., :c], x[..., c:], hole, form=form)
      return jnp.concatenate([x, shifted], -1)

    y, pull = jax.vjp(layer, x)
    return y, pull(g)[0]

  for form in ('plain', 'blocks'):
    y, grad = run(x, goldens.nhwc(data['g']), form)
    goldens.assert_close(goldens.nchw(y), data['y'])
    goldens.assert_close(goldens.nchw(grad), data['grad_x'])


def toy(**settings):
  """A narrow generator, its variables and a picture of no square, not of a power of two."""
  generator = networks.Generator(width=4, levels=4, **settings)
  image = jax.random.uniform(jax.random.key(0), (2, 24, 40, 3))
  mask = jnp.zeros((2, 24, 40, 1)).at[0, 8:17, 4:20].set(1).at[1, 0:9, 24:].set(1)
  variables = initial.values(lambda key: generator.init(key, image, mask), seed=1)
  return generator, variables, image, mask


@pytest.mark.parametrize('settings', [{}, dict(variant='face'), dict(mask_channel=False)], ids=str)
def test_other_shapes_than_squares_run_and_the_hole_is_not_read(settings):
  generator, variables, image, mask = toy(**settings)
  run = jax.jit(lambda image: generator.apply(variables, image, mask, image))
  found, other = run(image), run(jnp.where(mask == 1, 1 - image, image))
  assert found['out'].shape == image.shape and found['former'].shape == (2, 3, 5, 16)
  np.testing.assert_array_equal(found['out'], other['out'])
  assert (found['target'] != other['target']).any(), 'the features of the true picture'
  assert 0 <= found['out'].min() and found['out'].max() <= 1
  with pytest.raises(ValueError, match='image width 36 must be a multiple of 8 and at least 16'):
    jax.eval_shape(generator.apply, variables, image[:, :, :36], mask[:, :, :36])


def test_gradients_are_finite_for_every_hole():
  generator, variables, image, _ = toy()
  masks = jnp.zeros((3, 1, 24, 40, 1)).at[1, 0, 8, 8].set(1).at[2].set(1)

  @jax.jit
  def gradient(mask):
    def loss(params):
      out, _ = generator.apply(
        {**variables, 'params': params},
        image,
        jnp.tile(mask, (2, 1, 1, 1)),
        image,
        train=True,
        mutable=['batch_stats'],
      )
      return sum(x.sum() for name, x in out.items() if name != 'index')

    return jax.grad(loss)(variables['params'])

  for mask in masks:
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient(mask)))


def test_a_face_finds_its_features_in_the_mirror():
  """In a picture whose halves mirror each other, the hole's content is in the mirrored picture."""
  generator, variables, image, mask = toy(variant='face')
  image = jnp.concatenate([image[:, :, :20], image[:, :, 19::-1]], 2)
  mask = jnp.zeros((2, 24, 40, 1)).at[:, :, :16].set(1)  # cells 0 and 1 of 5
  found = jax.jit(generator.apply)(variables, image, mask)
  index = np.asarray(found['index'])
  assert index.max() < 30 and not (index[index < 15] % 5 < 2).any()
  # Known places of the mirrored picture are its first cells, where the picture has its hole.
  assert not (index[index >= 15] % 5 > 2).any()
