import cv2
import numpy as np
import pytest

from jaxinpaint import arrays
from jaxinpaint.data import crops, pipeline, resizing


def reduced(image, size, kernel, radius, antialias=True):
  """Separable resampling with half-pixel centres, written out: float64[size, size, 3]."""
  for axis in (1, 0):
    n = image.shape[axis]
    stretch = max(1.0, n / size) if antialias else 1.0
    centre = (np.arange(size) + 0.5) * n / size - 0.5
    weight = np.zeros((size, n))
    for i, c in enumerate(centre):
      near = np.arange(int(np.floor(c - radius * stretch)), int(np.ceil(c + radius * stretch)) + 1)
      w = kernel((near - c) / stretch) * (np.abs(near - c) < radius * stretch)
      if antialias:  # what lies outside does not count
        w = w * ((near >= 0) & (near < n))
      np.add.at(weight[i], np.clip(near, 0, n - 1), w)
    weight /= weight.sum(1, keepdims=True)
    image = np.moveaxis(np.tensordot(weight, image, (1, axis)), 0, axis)
    if antialias:  # Pillow holds 8 bits between the axes too, rows first
      image = np.clip(np.floor(image + 0.5), 0, 255)
  return image


def triangle(x):
  return np.maximum(0, 1 - np.abs(x))


def cubic(x, a=-0.5):
  x = np.abs(x)
  near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
  return np.where(x < 1, near, np.where(x < 2, far, 0))


def lanczos(x):
  return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


@pytest.fixture(scope='module')
def image(photographs):
  return photographs[1][:96, 10:106]  # 96 x 96


@pytest.mark.parametrize(
  ('name', 'kernel', 'radius', 'antialias'),
  [
    ('bilinear', triangle, 1, False),  # PyTorch's interpolate, align_corners=False
    ('bilinear_antialias', triangle, 1, True),
    ('bicubic_antialias', cubic, 2, True),
    ('lanczos', lanczos, 3, True),
  ],
)
@pytest.mark.parametrize('size', [41, 32, 121])
def test_kernels_are_their_formulas(image, name, kernel, radius, antialias, size):
  got = resizing.square(image, size, kernel=name).astype(np.float64)
  want = reduced(image.astype(np.float64), size, kernel, radius, antialias)
  assert got.shape == (size, size, 3)
  # Half a level is what rounding does; Pillow's weights are integers of 22 bits, and a value that
  # they bring to the other side of a half is a level off.
  assert np.abs(got - want).max() <= (1 if antialias else 0.501)
  assert np.mean(np.abs(got - want) > 0.501) < 0.01


def test_area_is_the_mean_of_the_pixels_covered(image):
  want = image.reshape(32, 3, 32, 3, 3).mean((1, 3))
  got = resizing.square(image, 32, kernel='area')
  assert np.abs(got - want).max() <= 0.501
  larger = cv2.resize(image, (120, 120), interpolation=cv2.INTER_CUBIC)
  np.testing.assert_array_equal(resizing.square(image, 120, kernel='area'), larger)


def test_an_aliasing_kernel_is_told_from_one_that_averages():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::4] = 255
  inside = {k: resizing.square(stripes, 16, kernel=k)[:, 4:-4] for k in resizing.KERNELS}
  assert inside['area'].std() == 0 and inside['bilinear_antialias'].std() == 0
  # Every fourth column, half a pixel beside the white one: it is not seen at all.
  assert inside['bilinear'].max() == 0
  for kernel in ('area', 'bilinear_antialias'):
    assert inside[kernel].mean() == pytest.approx(255 / 4, abs=0.5)


def test_crops():
  wide = np.zeros((20, 51, 3), np.uint8)
  wide[:, 15:35] = 200  # (51 - 20) // 2 = 15
  for kernel in resizing.KERNELS:
    assert (resizing.square(wide, 20, kernel=kernel) == 200).all()
  wide = np.random.default_rng(0).integers(0, 256, wide.shape, dtype=np.uint8)
  window = resizing.square(wide, 10, crop='window')  # its own pixels, at their own scale
  top, left = ((n - 10) // 2 for n in wide.shape[:2])
  np.testing.assert_array_equal(window, wide[top : top + 10, left : left + 10])
  np.testing.assert_array_equal(
    resizing.square(wide, 50, crop='window'), resizing.square(wide, 50, crop='center')
  )
  wide[:], wide[:, 15:35] = 0, 200
  whole = resizing.square(wide, 20, crop='resize', kernel='bilinear_antialias')
  assert whole[0, 0, 0] == 0 and whole[0, 10, 0] == 200


def test_an_evaluation_set_takes_the_kernel(image):
  class One:
    def __len__(self):
      return 1

    def __getitem__(self, i):
      return image

    def path(self, i):
      return 'one'

  default, _ = pipeline.evaluation_set(One(), size=40)[0]
  np.testing.assert_array_equal(default, crops.resize(image, 40, 40))
  seen = set()
  for kernel in resizing.KERNELS:
    got, _ = pipeline.evaluation_set(One(), size=40, resize=kernel)[0]
    np.testing.assert_array_equal(got, resizing.square(image, 40, kernel=kernel))
    seen.add(got.tobytes())
  assert len(seen) == len(resizing.KERNELS)
  with pytest.raises(ValueError, match="resize 'nearest' of the evaluation images"):
    pipeline.evaluation_set(One(), size=40, resize='nearest')


def test_rounding_to_eight_bits():
  levels = np.arange(256, dtype=np.uint8)
  between = (levels[:-1] + 0.75) / 255
  for rounding, up in (('nearest', 1), ('truncate', 0)):
    np.testing.assert_array_equal(arrays.to_uint8(arrays.to_float(levels), rounding), levels)
    np.testing.assert_array_equal(arrays.to_uint8(between, rounding), levels[:-1] + up)
    np.testing.assert_array_equal(arrays.to_uint8(np.array([-1.0, 2.0]), rounding), [0, 255])
