"""The networks of the context encoder against its port's own outputs, and its place in an image."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.masks import spec as masks
from jaxinpaint.systems.context_encoder import networks, published
from jaxinpaint.weights import mapping


def inner(state, name):
  return state['intermediates'][name]['__call__'][0]


@goldens.cases('context_encoder_generator')
def test_generator(case):
  data = case.data()
  image = (goldens.nhwc(data['image']) + 1) / 2
  height, width = image.shape[1:3]
  tree = mapping.convert(case.state(), published.generator_entries())
  mask = np.zeros((len(image), height, width, 1), np.float32)
  mask[:, height // 4 + 4 : -height // 4 - 4, width // 4 + 4 : -width // 4 - 4] = 1
  # The code has painted the hole already; here it must come out the same over anything.
  painted = image[mask[..., 0] > 0]
  np.testing.assert_allclose(painted, np.broadcast_to(networks.FILL, painted.shape), atol=1e-6)
  image = np.where(mask > 0, np.float32(0.3), image)
  run = networks.Generator(image_size=None).apply
  apply = jax.jit(functools.partial(run, capture_intermediates=True, mutable=['intermediates']))
  state = {'params': tree['params']['generator'], **tree['stats']['generator']}
  found, seen = apply(state, image, mask)
  goldens.assert_close(goldens.nchw(inner(seen, 'bottleneck_bn')), data['main15'], what='main15')
  first = jax.nn.relu(inner(seen, 'deconv1_bn'))[..., ::16]
  goldens.assert_close(goldens.nchw(first), data['main19'], what='main19')
  goldens.assert_close(goldens.nchw(2 * found['square'] - 1), data['out'], what='out')
  pasted = found['out'][:, height // 4 : -height // 4, width // 4 : -width // 4]
  np.testing.assert_array_equal(pasted, found['square'])


@goldens.cases('context_encoder_discriminator')
def test_discriminator(case):
  data = case.data()
  tree = mapping.convert(case.state(), published.discriminator_entries())
  state = {'params': tree['params']['discriminator'], **tree['stats']['discriminator']}
  logits = jax.jit(networks.Discriminator().apply)(state, (goldens.nhwc(data['image']) + 1) / 2)
  goldens.assert_close(goldens.nchw(logits), data['logits'], what='logits')
  goldens.assert_close(jax.nn.sigmoid(logits)[:, 0, 0], data['out'], what='out')


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('levels', [5, 4])
def test_parameter_counts_are_the_published_ones_and_each_has_its_key(levels):
  config = systems.default_config('context_encoder')
  config.model.update(dict(levels=levels, image_size=128))
  recipe = systems.make_recipe(config)
  batch = {'image': jnp.zeros((1, 128, 128, 3)), 'mask': jnp.zeros((1, 128, 128, 1))}
  params, stats = jax.eval_shape(recipe.init, jax.random.key(0), batch)
  if levels == 5:
    assert {n: count(p) for n, p in params.items()} == PARAMETERS
  want = set(mapping.flatten({'params': params, 'stats': stats}, separator='/'))
  entries = ['/'.join(e.target) for e in published.entries(config.model)]
  assert len(entries) == len(set(entries)) and set(entries) == want


PARAMETERS = {'generator': 71_124_544, 'discriminator': 2_765_568}


@pytest.mark.parametrize(
  'size, wanted',
  [((128, 160), (32, 96, 40, 120)), ((101, 375), (25, 76, 93, 282)), ((9, 10), (2, 7, 2, 8))],
)
def test_the_square_is_the_middle_half(size, wanted):
  box = networks.square(*size)
  assert box == wanted
  # The centre holes of a quarter of any image lie in it.
  mask = masks.make('center:0.25')(np.random.default_rng(0), *size)
  networks.check_hole(mask > 0)


def hole(size, rows, columns):
  mask = np.zeros(size, bool)
  mask[slice(*rows), slice(*columns)] = True
  return mask


def test_only_holes_in_the_middle_are_filled():
  networks.check_hole(hole((128, 160), (32, 96), (40, 120)))
  networks.check_hole(np.zeros((128, 128), bool))
  with pytest.raises(
    ValueError,
    match=r'in the middle .* of 128 x 160 pixels rows 32 to 95 and columns 40 to 119. This hole '
    r"spans rows 31 to 95 and columns 50 to 59: use masks such as 'center:0.25'",
  ):
    networks.check_hole(hole((128, 160), (31, 96), (50, 60)))


def narrow(**fields):
  return networks.Generator(**(dict(width=4, bottleneck=8, levels=3, image_size=32) | fields))


def drawn(generator, size):
  """(variables, image, blank mask) of one narrow network."""
  rng = np.random.default_rng(0)
  image = rng.random((1, *size, 3), np.float32)
  mask = np.zeros((1, *size, 1), np.float32)
  shapes = jax.eval_shape(generator.init, jax.random.key(0), image, mask)

  def draw(path, s):
    if len(s.shape) < 2:
      return np.full(s.shape, path[-1].key in ('scale', 'var'), np.float32)
    return rng.normal(0, np.sqrt(2 / np.prod(s.shape[:-1])), s.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes), image, mask


def test_what_is_hidden_is_not_read():
  size = (32, 32)
  generator = narrow(overlap=2)
  variables, image, mask = drawn(generator, size)
  top, bottom, left, right = networks.square(*size)
  mask[:, top : top + 3, left : left + 4] = 1
  apply = jax.jit(lambda image, mask: generator.apply(variables, image, mask))
  square = lambda image: np.asarray(apply(image, mask)['square'])
  changed = lambda i, j: (square(image) != square(np.array(image) + at(i, j))).any()

  def at(i, j):
    change = np.zeros(image.shape, np.float32)
    change[:, i, j] = 0.5
    return change

  assert changed(0, 0) and changed(top + 1, right - 1)  # known: outside, and in the border
  assert not changed(top, left) and not changed(top + 2, left + 3)  # the mask's hole
  assert not changed(top + 2, right - 3) and not changed(bottom - 3, left + 2)  # the hidden square


def test_without_hide_square_the_hole_alone_is_hidden():
  generator = narrow(hide_square=False)
  variables, image, mask = drawn(generator, (32, 32))
  mask[:, 14:16, 14:16] = 1
  grad = jax.jit(jax.grad(lambda image: generator.apply(variables, image, mask)['square'].sum()))(
    image
  )
  known = (np.asarray(grad) != 0).any((0, 3))
  assert known[10:14, 10:22].all() and not known[14:16, 14:16].any()


def test_known_pixels_around_the_square_stay():
  generator = narrow()
  variables, image, mask = drawn(generator, (35, 29))
  top, bottom, left, right = networks.square(35, 29)
  out = np.array(jax.jit(generator.apply)(variables, image, mask)['out'])
  assert (out[:, top:bottom, left:right] != image[:, top:bottom, left:right]).all()
  out[:, top:bottom, left:right] = image[:, top:bottom, left:right]
  np.testing.assert_array_equal(out, image)


def test_an_image_of_another_size_is_stretched():
  generator = narrow()
  variables, _, mask = drawn(generator, (32, 32))
  apply = jax.jit(generator.apply)
  # A slope, so that each small pixel is the mean of the large ones over it.
  slope = lambda h, w: np.float32(
    (np.arange(h)[:, None, None] + 0.5) / h * [0.9, 0.5, 0.1]
    + (np.arange(w)[:, None] + 0.5) / w * [0.1, 0.2, 0.8]
  )[None]
  small, large = slope(32, 32), slope(96, 64)
  want = np.asarray(apply(variables, small, mask)['square'])
  found = apply(variables, large, np.zeros((1, 96, 64, 1), np.float32))
  assert found['square'].shape == (1, 16, 16, 3)
  assert np.abs(found['square'] - want).mean() < 0.1 * want.std()
  enlarged = jax.image.resize(found['square'], (1, 48, 32, 3), 'linear')
  np.testing.assert_allclose(found['out'][:, 24:72, 16:48], enlarged, atol=1e-6)


def test_sizes_that_the_convolutions_do_not_take_are_refused():
  generator = narrow(image_size=None)
  image, mask = jnp.zeros((1, 32, 36, 3)), jnp.zeros((1, 32, 36, 1))
  with pytest.raises(ValueError, match='image width 36 must be a multiple of 8 and at least 32'):
    jax.eval_shape(generator.init, jax.random.key(0), image, mask)
