"""The ways to run a system are one: the same weights give the same pixels through each of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxinpaint
from jaxinpaint import systems, trained
from jaxinpaint.cli import inpaint
from jaxinpaint.evaluation import rows, watch
from jaxinpaint.evaluation.evaluate import evaluate
from jaxinpaint.evaluation.spec import EvaluationSpec, ImagesSpec, MaskedImages
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.metrics import protocols
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Inference, Variables
from jaxinpaint.training import config as config_lib
from jaxinpaint.training.checkpoints import Checkpoints
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import store

BINS = protocols.parse_bins(['20-40'])
SIDE = 37  # of the images of the run; the networks take multiples of 16


@pytest.fixture(scope='module')
def narrow():
  """(config, params, stats) of a system that pads a lot, with numbers that make it no constant."""
  config = config_lib.base('ctsdg').unlock()
  config.model.update(dict(width=4, levels=4, use_bigff=False, use_cfa=False))
  config.loss.update(dict(perceptual=0.0, style=0.0))
  config.data.update(dict(size=SIDE, source='sample', eval_source=''))
  config.evaluation.update(dict(count=4, quick_count=4, batch_size=2, masks='strokes'))
  config.training.update(dict(sample_count=3))
  params, stats = systems.inference(config).shapes()
  rng = np.random.default_rng(0)
  draw = lambda x: rng.normal(0, np.prod(x.shape[:-1]) ** -0.5 if x.shape else 1, x.shape)
  params = jax.tree.map(lambda x: draw(x).astype(x.dtype), params)
  return config, params, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), stats)


@pytest.fixture(scope='module')
def weights(narrow, tmp_path_factory):
  """A weights file, and beside it a run of one checkpoint with the same numbers."""
  folder = tmp_path_factory.mktemp('weights')
  config, params, stats = narrow
  saver = Checkpoints(folder / 'run')
  saver.save(TrainState(jnp.int32(2), params, stats, {}, {}), config, {})
  saver.close()
  return store.save(folder / 'net.safetensors', 'ctsdg', config, params, stats)


def hole(height, width, index):
  """bool[H, W], in another place for each index; it touches the rim, where the padding begins."""
  mask = np.zeros((height, width), bool)
  mask[height // 2 :, width // (3 + index) : width // 2 + 2 * index] = True
  return mask


@pytest.fixture(scope='module')
def ways(weights):
  """An evaluation's row, the file in Python, and the run in Python; each is traced once."""
  row = rows.predictor(trained.load(weights), seed=0)
  return row, jaxinpaint.load(weights), jaxinpaint.load(f'{weights.parent}/run@2')


@pytest.mark.parametrize('size', [(37, 53), (33, 64)])  # both are padded to 48 x 64
def test_a_row_python_and_files_give_the_same_pixels(ways, weights, photographs, tmp_path, size):
  row, of_file, of_run = ways
  height, width = size
  images = [(p[:height, :width], f'{k}') for k, p in enumerate(photographs)]
  holes = [hole(height, width, k) for k in range(3)]
  on = MaskedImages(images, {BINS[0]: lambda i: holes[i].astype(np.uint8)}, 3)
  spec = EvaluationSpec({'row': row}, on, protocols.SEED000, batch_size=2)
  results = evaluate(spec, examples=3, progress=False)
  measured = {e.index: e.outputs['row'] for e in results.examples}
  assert (measured[0][holes[0]] != images[0][0][holes[0]]).any()

  for folder in ('images', 'masks'):
    (tmp_path / folder).mkdir()
  for k, (image, _) in enumerate(images):
    Image.fromarray(image).save(tmp_path / 'images' / f'{k}.png')
    Image.fromarray(np.uint8(255) * holes[k]).save(tmp_path / 'masks' / f'{k}.png')
  places = {n: tmp_path / n for n in ('output', 'image', 'mask')}
  places |= dict(image=tmp_path / 'images', mask=tmp_path / 'masks')
  flags = dict(weights=weights, **places)
  assert inpaint.main([f'--{name}={value}' for name, value in flags.items()]) == 0

  together = of_run([image for image, _ in images], holes)
  for k, (image, _) in enumerate(images):
    alone = of_file(image, holes[k])
    file = np.asarray(Image.open(places['output'] / f'{k}.png'))
    for found in (file, alone, together[k]):
      np.testing.assert_array_equal(found, measured[k])
    np.testing.assert_array_equal(measured[k][~holes[k]], image[~holes[k]])


def test_the_evaluation_during_training_is_that_of_the_stored_run(narrow, weights, tmp_path):
  config, params, stats = narrow
  state = TrainState(jnp.int32(2), params, stats, {}, {})
  during = watch.Watch(systems.inference(config), config, tmp_path).evaluate(2, state, {})
  on = ImagesSpec.of_config(config).load()
  on = dataclasses.replace(on, masks=watch.quick_masks(on.masks))
  row = rows.predictor(trained.load(f'{weights.parent}/run'), seed=0)
  protocol = watch.without_networks(protocols.get(config.evaluation.protocol))
  results = evaluate(EvaluationSpec({'row': row}, on, protocol, batch_size=2), progress=False)
  (b,) = results.bins
  own = {name: mean for name, mean in during.items() if '/' not in name}  # without the fills'
  assert own == {m.name: results.summary('row', b, m.name).mean for m in protocol.metrics}


def batch_of(photographs, height=37, width=53):
  mask = np.stack([hole(height, width, k) for k in range(3)])[..., None].astype(np.float32)
  image = np.stack([p[:height, :width] for p in photographs]) / np.float32(255)
  return np.where(mask > 0, np.float32(0), image), mask


def test_neither_batch_nor_devices_change_a_picture(narrow, photographs):
  config, *weights = narrow
  variables, inference = Variables(*weights), systems.inference(config)
  image, mask = batch_of(photographs)
  ids = np.arange(3)
  alone = Predictor(inference, variables, devices=jax.devices()[:1])
  one_by_one = np.concatenate(
    [alone(image[k : k + 1], mask[k : k + 1], ids[k : k + 1]) for k in ids]
  )
  # An image on each of three devices runs through the program of one image: the same to the bit.
  spread = Predictor(inference, variables)
  np.testing.assert_array_equal(spread(image, mask, ids), one_by_one)
  # Three images on one device, or two on each of two, are another program: the same but for
  # rounding.
  for devices in (jax.devices()[:1], jax.devices()[:2]):
    found = Predictor(inference, variables, devices=devices)(image, mask, ids)
    np.testing.assert_allclose(found, one_by_one, rtol=0, atol=1e-5)
  known = np.broadcast_to(mask == 0, image.shape)
  np.testing.assert_array_equal(one_by_one[known], image[known])


def toy(output, **fields):
  return Inference(('generator',), None, output, **fields)


NO_WEIGHTS = Variables({'generator': {}}, {})


@pytest.mark.parametrize('size', [(5, 8), (3, 5), (1, 6), (16, 16)])
def test_networks_see_reflections_of_image_mask_and_inputs(size):
  seen = []

  def output(variables, constants, image, mask, rng, gray):
    arrays = jnp.concatenate([image, mask, gray], -1)
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), arrays)
    return image

  predictor = Predictor(toy(output, multiple=8, min_side=16, inputs=('gray',)), NO_WEIGHTS)
  rng = np.random.default_rng(0)
  image, mask = rng.random((1, *size, 3), np.float32), np.zeros((1, *size, 1), np.float32)
  mask[:, -1, -2:] = 1
  assert predictor.padded_size(*size) == (16, 16)
  np.testing.assert_array_equal(predictor(image, mask, np.zeros(1)), image)
  jax.effects_barrier()
  padding = [(0, 0), (0, 16 - size[0]), (0, 16 - size[1]), (0, 0)]
  (found,) = seen
  for part, whole in ((found[..., :3], image), (found[..., 3:4], mask)):
    np.testing.assert_array_equal(part, np.pad(whole, padding, mode='reflect'))
  luminance = found[..., :3] @ np.float32([0.2125, 0.7154, 0.0721])
  np.testing.assert_allclose(found[..., 4], luminance, atol=1e-6)


def test_networks_of_one_side_see_a_square_of_known_pixels():
  seen = []

  def output(variables, constants, image, mask, rng):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), jnp.concatenate([image, mask], -1))
    return jnp.ones_like(image)

  predictor = Predictor(toy(output, side=8), NO_WEIGHTS, pad_to=3)
  rng = np.random.default_rng(0)
  image = rng.uniform(0.1, 0.4, (16, 4, 3)).astype(
    np.float32
  )  # reduced one way, enlarged the other
  mask = np.zeros((16, 4, 1), np.float32)
  mask[5:8, 2:] = 1
  image *= 1 - mask
  square = np.full((8, 8, 3), 0.25, np.float32), np.zeros((8, 8, 1), np.float32)
  square[1][:, 4:] = 1
  assert predictor.padded_size(16, 4) == (8, 8) == predictor.padded_size(300, 200)
  assert predictor.for_sizes([(k, 9) for k in range(1, 99)]) is predictor
  stretched, given = predictor(*zip((image, mask), square, strict=True), np.arange(2))
  jax.effects_barrier()
  first, second = sorted(np.concatenate(seen), key=lambda x: x[..., 3].mean())
  np.testing.assert_array_equal(second, np.concatenate(square, -1))  # its own size: as it is
  rows = image.reshape(8, 2, 4, 3).mean(1)
  # Columns 0, 1, 2, 3 of four lie at 0.5, 2.5, 4.5, 6.5 of eight.
  np.testing.assert_allclose(first[0, 1, :3], 0.75 * rows[0, 0] + 0.25 * rows[0, 1], atol=1e-6)
  hole = np.zeros((8, 8), bool)
  hole[2:4, 3:] = True  # row 2 holds a known row and one with a hole
  np.testing.assert_array_equal(first[..., 3] > 0, hole)
  assert not first[hole][:, :3].any() and first[~hole][:, :3].min() > 0.09
  known = np.broadcast_to(mask == 0, image.shape)
  np.testing.assert_array_equal(stretched[known], image[known])
  # Pasted into the square first, the completion meets the known pixels at the rim of the hole.
  assert stretched.shape == image.shape and 0.5 < stretched[~known].min() < 1
  assert stretched[6, 3].min() > 0.9
  np.testing.assert_array_equal(given, np.where(square[1] > 0, 1, square[0]))
  whole = predictor.output([image], [mask], np.zeros(1))[0]
  np.testing.assert_allclose(whole, 1.0, atol=1e-6)


def uniform(variables, constants, image, mask, rng):
  return jax.random.uniform(rng, image.shape)


def test_random_numbers_follow_the_seed_the_image_and_the_sample():
  inference = toy(uniform, multiple=8, samples=True)
  predictor = Predictor(inference, NO_WEIGHTS, seed=5)
  image, mask = np.zeros((3, 8, 8, 3), np.float32), np.ones((3, 8, 8, 1), np.float32)
  found = predictor(image, mask, np.array([4, 7, 9]))
  np.testing.assert_array_equal(predictor(image[:1], mask[:1], np.array([7])), found[1:2])
  others = [
    predictor(image, mask, np.array([4, 7, 9]), sample=1),
    predictor(image, mask, np.array([0, 1, 2])),
    Predictor(inference, NO_WEIGHTS, seed=6)(image, mask, np.array([4, 7, 9])),
  ]
  assert all((other != found).all(axis=(1, 2, 3)).all() for other in others)
  # An inpainter's list is a set of images: the same numbers as in an evaluation of that set.
  sizes = [(8, 8), (5, 16), (7, 6)]
  pictures = [np.zeros((*s, 3), np.float32) for s in sizes]
  holes = [np.pad(np.ones((s[0] - 1, s[1] - 1), bool), ((1, 0), (1, 0))) for s in sizes]
  painted = Inpainter(predictor, name='toy')(pictures, holes)
  for k, (picture, where) in enumerate(zip(pictures, holes, strict=True)):
    masks = where[None, ..., None].astype(np.float32)
    np.testing.assert_array_equal(painted[k], predictor(picture[None], masks, np.array([k]))[0])


def test_the_fingerprint_is_of_all_that_an_output_depends_on():
  inference = toy(uniform)
  params = lambda x: {'generator': {'w': np.full(3, x, np.float32)}, 'critic': {}}
  weigh = lambda x: Variables(params(x), {})
  first = Predictor(inference, weigh(1)).fingerprint()
  assert first == Predictor(inference, weigh(1), devices=jax.devices()[:1]).fingerprint()
  others = [
    Predictor(inference, weigh(2)),
    Predictor(inference, weigh(1), {'vgg': np.ones(2)}),
    Predictor(inference, weigh(1), seed=1),
    Predictor(inference, weigh(1), pad_to=8),
    Predictor(toy(uniform, inputs=('gray',)), weigh(1)),
  ]
  assert len({first, *(other.fingerprint() for other in others)}) == 6
