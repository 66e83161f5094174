"""Masks that host and device draw alike."""

import functools

import jax
import numpy as np
import optax
import pytest
import toy
from ml_collections import ConfigDict

from jaxinpaint.data import pipeline
from jaxinpaint.masks import brush
from jaxinpaint.masks import spec as masks
from jaxinpaint.training import sharding, state, step


def keys(n):
  return np.stack([brush.key_of(np.random.default_rng(i)) for i in range(n)])


@pytest.mark.parametrize(
  'spec,height,width',
  [
    ('brush', 33, 90),
    ('brush:0.1-0.2', 128, 128),
    ('brush:0.9-0.95', 48, 40),
    ('brush:0.3-0.301;min_width=1;max_width=3', 40, 40),
  ],
)
def test_the_device_draws_what_the_host_draws(spec, height, width):
  sampler = masks.make(spec)
  host = np.stack([brush.draw(k, height, width, sampler) for k in keys(12)])
  device = jax.jit(lambda k: brush.draw_on_device(k, height, width, sampler))(keys(12))
  np.testing.assert_array_equal(device[..., 0], host)
  assert len(np.unique(host.reshape(12, -1), axis=0)) > 10
  shares = host.mean((1, 2))
  if sampler.area:
    assert (shares > sampler.area[0]).all() and (shares <= sampler.area[1]).all()
  else:
    assert 0 < shares.min() and shares.max() < 0.6


def test_a_segment_is_every_pixel_within_the_half_width():
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:50, :60]
  for _ in range(50):
    a, b, r = rng.integers(0, 50, 2), rng.integers(0, 50, 2), int(rng.integers(1, 9))
    segment = np.array([[*a, *b, r]], np.int32)
    got = brush._inside(np, segment, np.arange(50)[:, None], np.arange(60)[None])[0]
    p, d = np.stack([y, x], -1) - a, b - a
    along = np.clip((p @ d) / max(d @ d, 1), 0, 1)
    distance = np.linalg.norm(p - along[..., None] * d, axis=-1)
    assert got[distance <= r * (1 - 1e-9) - 1].all() and not got[distance > r * (1 + 1e-9)].any()


def test_the_random_numbers_are_even_and_depend_on_every_bit_of_the_key():
  counters = np.arange(20_000)
  got = brush._random(np, np.array([[1, 2]], np.uint32), counters)[0] / 2.0**32
  counts, _ = np.histogram(got, 64, (0, 1))
  assert abs(counts - 20_000 / 64).max() < 5 * np.sqrt(20_000 / 64)
  assert abs(np.corrcoef(got[:-1], got[1:])[0, 1]) < 0.03
  first = np.array([[7, 9]], np.uint32)
  for word in (0, 1):
    for bit in (0, 13, 31):
      other = first.copy()
      other[0, word] ^= np.uint32(1) << np.uint32(bit)
      equal = brush._random(np, first, counters) == brush._random(np, other, counters)
      assert equal.mean() < 0.001


def test_wrong_options_get_a_sentence():
  for spec, want in (
    ('brush:0.5-0.2', 'low < high'),
    ('brush;max_strokes=9', 'must be 1 to 3'),
    ('brush;min_width=50', 'min_width <= max_width'),
  ):
    with pytest.raises(ValueError, match=want):
      masks.make(spec)
  with pytest.raises(ValueError, match='8 to 2048 pixels, not 4 x 64'):
    masks.make('brush')(np.random.default_rng(0), 4, 64)
  with pytest.raises(ValueError, match='widen the area range'):
    masks.make('brush:0.5-0.5001')(np.random.default_rng(0), 9, 9)


def data(**changes):
  fields = dict(source='sample', split='train', size=32, crop='random', flip=True, batch_size=8)
  return ConfigDict(fields | dict(masks='brush:0.1-0.4', workers=0) | changes)


def test_a_step_that_draws_its_masks_is_the_step_that_gets_them():
  recipe = toy.recipe()
  txs = {'generator': optax.sgd(0.1), 'critic': optax.sgd(0.1)}
  mesh = sharding.make_mesh(data=1)
  ended = []
  for on_device in (False, True):
    batches = pipeline.make(data(masks_on_device=on_device), seed=3)
    draw = functools.partial(brush.draw_on_device, brush=masks.make('brush:0.1-0.4'))
    train_step = step.make_train_step(recipe, txs, draw_masks=draw if on_device else None)
    current = state.create(recipe, txs, (), jax.random.key(0), toy.batch())
    for i in range(2):
      batch = next(batches)
      assert ('mask' in batch) != on_device
      batch = sharding.to_devices(batch, mesh)
      current, _ = train_step(current, {}, batch, jax.random.key(1), recipe.plan(i))
    batches.close()
    ended.append(current.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-7), *ended)


def test_other_masks_stay_on_the_host():
  with pytest.raises(ValueError, match="masks 'irregular' are drawn on the host"):
    pipeline.check(data(masks='irregular', masks_on_device=True), seed=0)
