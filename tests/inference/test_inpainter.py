"""Arrays in, arrays out."""

import dataclasses
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import toy_system

from jaxinpaint import arrays
from jaxinpaint.inference import inpainter
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.inference.job import shrink
from jaxinpaint.predictor import Predictor, gather

rng = np.random.default_rng(0)


def noise(*shape):
  return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (20, 13), (37, 41), (64, 64)])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.float64, np.float16])
def test_any_size_and_type_keeps_known_pixels_to_the_bit(size, dtype):
  image = noise(*size, 3)
  if dtype != np.uint8:
    image = (image / 255).astype(dtype)
  mask = toy_system.hole(*size)
  out = toy_system.inpainter()(image, mask)
  assert out.shape == image.shape and out.dtype == dtype
  known = mask == 0
  assert out[known].tobytes() == image[known].tobytes()
  want = arrays.to_uint8(np.array(toy_system.COLOUR)) / (1 if dtype == np.uint8 else 255)
  np.testing.assert_allclose(out[~known], np.broadcast_to(want, out[~known].shape), atol=3e-3)


def test_arrays_too_small_to_be_refined_are_told():
  system = toy_system.inference(multiple=8, refined_side=32)
  system = dataclasses.replace(system, refined=system.output)
  painter = Inpainter(Predictor(system, toy_system.variables(), refine=True), name='toy')
  images = [noise(20, 60, 3), noise(40, 60, 3), noise(20, 60, 3)]
  masks = [toy_system.hole(*image.shape[:2]) for image in images]
  masks[2][:] = 0  # there is nothing to complete
  with pytest.warns(UserWarning, match='1 of 3 images were not refined: .* less than 32 pixels'):
    painter(images, masks)
  with warnings.catch_warnings(action='error'):
    painter(images[1], masks[1])
    painter(images[2], masks[2])


def test_known_pixels_survive_a_network_that_changes_them():
  image = noise(20, 13, 3)
  out = toy_system.inpainter(lambda v, c, image, mask, rng: jnp.ones_like(image))(
    image, toy_system.hole(20, 13)
  )
  known = toy_system.hole(20, 13) == 0
  assert (out[known] == image[known]).all() and (out[~known] == 255).all()


def test_the_network_gets_padded_sizes_and_no_hole_content():
  seen = []

  def predict(variables, constants, image, mask, rng):
    seen.append(image.shape)
    return image + mask * 0.5

  image = np.full((37, 41, 3), 0.75, np.float32)
  mask = toy_system.hole(37, 41) > 0
  image[mask] = np.nan
  out = toy_system.inpainter(predict, multiple=16, min_side=64)(image, mask)
  assert seen == [(1, 64, 64, 3)]
  assert (out[mask] == 0.5).all()  # blank, not the 0.75 around it nor the NaN


def test_padding_never_shows_a_hole_as_known():
  def predict(variables, constants, image, mask, rng):
    bad = ((image[..., :1] == 0) & (mask == 0)).any()
    return jnp.where(bad, 1.0, 0.25) * jnp.ones_like(image)

  mask = toy_system.hole(20, 13)  # touches the rim
  out = toy_system.inpainter(predict, multiple=32)(np.full((20, 13, 3), 9, np.uint8), mask)
  assert (out[mask > 0] == 64).all()


def test_equal_padded_shapes_compile_once_and_results_keep_their_order():
  traces = []

  def predict(variables, constants, image, mask, rng):
    traces.append(image.shape)
    mean = (image * (1 - mask)).sum((1, 2), keepdims=True) / (1 - mask).sum((1, 2), keepdims=True)
    return arrays.compose(jnp.broadcast_to(mean, image.shape), image, mask)

  run = toy_system.inpainter(predict, multiple=32, batch_size=4)
  sizes = [(30, 20), (31, 32), (64, 33), (17, 25), (32, 32), (50, 40), (18, 18), (22, 30), (9, 9)]
  images = [np.full((*s, 3), 10 * i, np.uint8) for i, s in enumerate(sizes)]
  masks = [toy_system.hole(*s) for s in sizes]
  outputs = run(images, masks)
  # Seven of 32 x 32: four, and three filled up to four. Two of 64 x 64.
  assert traces == [(4, 32, 32, 3), (2, 64, 64, 3)]
  for image, out in zip(images, outputs, strict=True):
    assert out.shape == image.shape and (out == image).all()
  run(images[0], masks[0])
  assert traces[2:] == [(1, 32, 32, 3)]  # one image does not pay for four
  run(images[1], masks[1])
  assert len(traces) == 3


def test_large_images_run_in_smaller_batches():
  shapes = []

  def predict(variables, constants, image, mask, rng):
    shapes.append(image.shape[0])
    return image

  images = np.zeros((3, 1024, 512, 3), np.uint8)
  mask = np.zeros((1024, 512), bool)
  mask[5:9, 5:9] = True
  toy_system.inpainter(predict, batch_size=4)(images, mask)
  assert shapes == [2]


def test_batches_and_lists():
  images = noise(3, 24, 24, 3)
  mask = toy_system.hole(24, 24)
  run = toy_system.inpainter()
  one_by_one = np.stack([run(image, mask) for image in images])
  for masks in (mask, mask[..., None], np.stack([mask] * 3), np.stack([mask[..., None]] * 3)):
    assert (run(images, masks) == one_by_one).all()
  as_list = run(list(images), mask)
  assert isinstance(as_list, list) and (np.stack(as_list) == one_by_one).all()
  assert run(images[:0], mask).shape == (0, 24, 24, 3)
  assert run([], []) == []


@pytest.mark.parametrize(
  'convert',
  [
    lambda m: m,
    lambda m: m > 0,
    lambda m: m // 255,
    lambda m: (m // 255).astype(np.int64),
    lambda m: (m / 255).astype(np.float32),
    lambda m: np.where(m > 0, 128, 127).astype(np.uint8),
  ],
)
def test_masks_of_every_kind_mean_the_same(convert):
  image = noise(24, 24, 3)
  mask = toy_system.hole(24, 24)
  run = toy_system.inpainter()
  assert (run(image, convert(mask)) == run(image, mask)).all()


def test_an_empty_mask_runs_nothing():
  def predict(*args):
    raise AssertionError('ran')

  image = noise(9, 9, 3)
  out = toy_system.inpainter(predict)(image, np.zeros((9, 9), bool))
  assert (out == image).all() and out is not image


def test_max_side_reduces_only_what_the_network_sees():
  seen = []

  def predict(variables, constants, image, mask, rng):
    seen.append(image.shape)
    return arrays.compose(jnp.full_like(image, 0.5), image, mask)

  image = noise(100, 200, 3)
  mask = toy_system.hole(100, 200)
  out = toy_system.inpainter(predict, max_side=64)(image, mask)
  assert seen == [(1, 32, 64, 3)]
  known = mask == 0
  assert (out[known] == image[known]).all()
  inner = out[60:, 80:]
  assert (np.abs(inner.astype(int) - 128) <= 1).all()


def test_shrinking_leaves_the_hole_out_of_the_mean():
  image = np.full((40, 40, 3), 0.7, np.float32)
  hole = np.zeros((40, 40), bool)
  hole[11:20, 7:30] = True
  image[hole] = 0
  small, small_hole = shrink(image, hole, 13)
  assert small.shape == (13, 13, 3) and small_hole.any() and not small_hole.all()
  np.testing.assert_allclose(small[~small_hole], 0.7, atol=1e-5)


@pytest.mark.parametrize(
  ('image', 'mask', 'words'),
  [
    (np.zeros((8, 8), np.uint8), np.zeros((8, 8)), r'shape \(8, 8\)'),
    ('photo.jpg', np.zeros((8, 8)), 'image is a path, photo.jpg: read'),
    (np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8)), r'\(8, 8, 4\).*RGB'),
    (np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8)), 'repeat the grey channel'),
    (np.zeros((0, 8, 3), np.uint8), np.zeros((0, 8)), 'no pixels'),
    (np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8)), 'uint16.*65535'),
    (np.full((8, 8, 3), 200.0), np.eye(8), r'to 200.*\[0, 1\]'),
    (np.full((8, 8, 3), np.nan), np.eye(8), r'nan.*\[0, 1\]'),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9)), 'mask is 8 x 9.*the image 8 x 8'),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3)), r'mask has the shape \(8, 8, 3\)'),
    (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 255.0), r'float mask.*255.*\[0, 1\]'),
    (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), -1), 'mask of type int64.*-1'),
    (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8)), '2 images but 3 masks'),
  ],
)
def test_wrong_arrays_get_a_sentence(image, mask, words):
  with pytest.raises(InpaintError, match=words):
    toy_system.inpainter()(image, mask)


def test_a_network_that_diverged_is_reported():
  run = toy_system.inpainter(lambda v, c, image, mask, rng: image / 0 * mask)
  with pytest.raises(InpaintError, match='toy gave values that are not finite'):
    run(noise(16, 16, 3), toy_system.hole(16, 16))


@pytest.mark.parametrize('options', [{'batch_size': 0}, {'max_side': 4}, {'blend': 'x'}])
def test_options_out_of_range(options):
  with pytest.raises(InpaintError, match=next(iter(options))):
    toy_system.inpainter(**options)


def test_the_seed_decides_random_systems():
  import jax

  def predict(variables, constants, image, mask, rng):
    return arrays.compose(jax.random.uniform(rng, image.shape), image, mask)

  image, mask = noise(16, 16, 3), toy_system.hole(16, 16)
  a, b, c = (toy_system.inpainter(predict, seed=s)(image, mask) for s in (0, 0, 1))
  assert (a == b).all() and (a != c).any()


def test_pictures_have_the_images_size_and_read_what_is_known():
  seen = {}

  def draw(variables, constants, image, mask, rng, canny):
    seen['shapes'] = image.shape, mask.shape, canny.shape
    return {'edges': canny, 'input': image}

  fields = dict(multiple=8, min_side=16, inputs=('canny:sigma=1',), pictures=draw)
  predict = lambda variables, constants, image, mask, rng, canny: image
  predictor = Predictor(toy_system.inference(predict, **fields), toy_system.variables())
  run = Inpainter(predictor, name='toy')
  image = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
  mask = toy_system.hole(21, 30)
  drawn = run.pictures(image, mask)
  assert seen['shapes'] == ((1, 24, 32, 3), (1, 24, 32, 1), (1, 24, 32, 1))
  assert drawn['edges'].shape == (21, 30, 1) and drawn['edges'].any()
  np.testing.assert_array_equal(drawn['input'], np.where(mask[..., None] > 0, 0, image))
  assert run(image, mask).shape == image.shape  # predict gets the input, too
  assert toy_system.inpainter().pictures(image, mask) == {}


def test_a_mask_that_is_hole_everywhere_is_refused():
  image = np.zeros((20, 24, 3), np.uint8)
  with pytest.raises(InpaintError, match='every pixel of the mask is hole'):
    toy_system.inpainter()(image, np.full((20, 24), 255))


def test_images_that_memory_does_not_suffice_for_stop_no_other():
  def predict(variables, constants, image, mask, rng):
    if image.shape[1] > 16:
      raise MemoryError
    return image

  items = [(n, 0, noise(n, n, 3), toy_system.hole(n, n)) for n in (16, 32, 15)]
  refused = {}
  painter = toy_system.inpainter(predict)
  assert {key for key, _ in painter.stream(items, refused=refused.__setitem__)} == {15, 16}
  assert list(refused) == [32] and 'max_side below 32' in str(refused[32])
  with pytest.raises(InpaintError, match='max_side below 32'):
    list(painter.stream(items))


def test_masks_of_any_type_mean_the_same():
  image = np.full((24, 24, 3), 9, np.uint8)
  hole = toy_system.hole(24, 24) > 0
  run = toy_system.inpainter()
  wanted = run(image, hole)
  for mask in (hole * np.uint8(1), hole * np.uint8(90), hole * 255, hole * 65535, hole * 0.3):
    np.testing.assert_array_equal(run(image, mask), wanted)


def programs(sizes, **options):
  """The padded sizes that were compiled for images of these sizes, whose results are checked."""
  seen = []

  def output(variables, constants, image, mask, rng):
    seen.append(image.shape[1:3])
    return jnp.broadcast_to(variables.params['generator']['colour'], image.shape)

  system = toy_system.inference(output, multiple=8, whole_picture=options.pop('whole', False))
  painter = Inpainter(Predictor(system, toy_system.variables()), name='toy', **options)
  images = [noise(*size, 3) for size in sizes]
  masks = [toy_system.hole(*size) for size in sizes]
  outputs = painter(images, masks)
  colour = arrays.to_uint8(np.array(toy_system.COLOUR))
  for image, mask, out in zip(images, masks, outputs, strict=True):
    assert (out[mask == 0] == image[mask == 0]).all() and (out[mask > 0] == colour).all()
  return seen


def test_images_of_many_sizes_need_few_programs():
  sizes = [(40 + 8 * i, 136 - 8 * i) for i in range(12)]
  gathered = programs(sizes)
  assert len(set(gathered)) == 4 and max(h * w for h, w in gathered) <= 128 * 136
  assert set(programs(sizes, exact_sizes=True)) == set(sizes)
  assert set(programs(sizes, whole=True)) == set(sizes)  # padding would change all of the output
  assert set(programs(sizes[:4])) == set(sizes[:4])  # few sizes stay as they are


def test_gathering_pads_no_more_than_compilations_are_worth():
  far = [(1024, 1024), (1024, 4096), (4096, 1024), (2048, 2048), (4096, 4096), (1016, 1024)]
  gathered = gather(far)
  assert gathered == {size: size for size in far} | {(1016, 1024): (1024, 1024)}
  many = [(8 * h, 8 * w) for h in range(1, 33) for w in range(1, 33)]  # more than are compared
  gathered = gather(many, 8)
  assert set(gathered) == set(many)
  for (h, w), (rows, columns) in gathered.items():
    assert h <= rows and w <= columns and rows % 8 == columns % 8 == 0


@pytest.mark.parametrize(('pixels', 'most'), [(3 * 400, 3), (100, 1)])
def test_the_images_that_wait_are_bounded_by_their_pixels(pixels, most, monkeypatch):
  monkeypatch.setattr(inpainter, '_WAITING_PIXELS', pixels)
  taken = []

  def items():
    for i in range(10):  # 20 x 20 each, reduced to the same 16 x 16
      taken.append(i)
      yield i, i, noise(20, 20, 3), toy_system.hole(20, 20)

  painter = toy_system.inpainter(max_side=16, batch_size=8)
  done = []
  for key, _ in painter.stream(items()):
    # The one that has just been taken is read, but not among those that wait.
    assert len(taken) - len(done) <= most + 1
    done.append(key)
  assert sorted(done) == list(range(10))
