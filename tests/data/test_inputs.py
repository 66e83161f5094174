import goldens
import numpy as np
import pytest
from skimage import data as photographs_of

from jaxinpaint.data import inputs, pipeline


@goldens.cases('edgeconnect_canny')
def test_canny_is_that_of_the_published_code(case):
  data = case.data()
  for sigma in (1, 2, 3):
    got = inputs.compute((f'canny:sigma={sigma}',), data['rgb'], None)['canny']
    np.testing.assert_array_equal(got[..., 0], data[f'edge_sigma{sigma}'])
  masked = inputs.compute(('canny',), data['rgb'], data['mask'][..., None])['canny']
  np.testing.assert_array_equal(masked[..., 0], data['edge_sigma2_masked'])


def test_what_the_hole_holds_has_no_edges_and_a_float_image_the_same_ones():
  image = photographs_of.astronaut()[100:228, 100:228]
  mask = np.zeros((128, 128, 1), np.uint8)
  mask[40:90, 30:80] = 1
  blank = np.where(mask > 0, 0, image)
  first = inputs.compute(('canny',), image, mask)['canny']
  second = inputs.compute(('canny',), blank.astype(np.float32) / 255, mask)['canny']
  np.testing.assert_array_equal(first, second)
  assert first.shape == (128, 128, 1) and first.any() and not first[39:91, 29:81].any()


def test_a_batch_of_the_pipeline_holds_them():
  config = dict(source='sample', split='train', size=32, crop='center', flip=True, batch_size=2)
  config = _Config(config | dict(masks='center', workers=0))
  batches = pipeline.make(config, 0, inputs=('canny:sigma=1',))
  batch = next(batches)
  batches.close()
  want = inputs.compute(('canny:sigma=1',), batch['image'], None)
  assert set(batch) == {'image', 'mask', 'id', 'canny'} and batch['canny'].any()
  np.testing.assert_array_equal(batch['canny'], want['canny'])
  assert inputs.shapes(('canny:sigma=1',), (2, 32, 32)) == {'canny': batch['canny'].shape}


@goldens.cases('ctsdg_edge_input')
def test_wrapped_maps_are_those_of_the_published_code(case):
  data = case.data()
  normalized = goldens.nhwc(data['image'])
  np.testing.assert_array_equal(inputs.wrapped(normalized), data['wrapped'])
  image = np.rint((normalized + 1) * 127.5).astype(np.uint8)  # what its file held
  got = inputs.compute(('gray:wrapped=1', 'canny:sigma=2,wrapped=1'), image, None)
  goldens.assert_close(got['gray'][..., 0], data['gray'], 1e-6)
  np.testing.assert_array_equal(got['canny'][..., 0] > 0, data['edge'])


@pytest.mark.parametrize(
  'spec, message',
  [
    ('sobel', r"unknown input 'sobel'; there are: canny, gray"),
    ('canny:width=2', r"no option 'width'; there are: sigma, wrapped"),
    ('canny:sigma=wide', r"sigma cannot be 'wide'"),
    ('canny:sigma=0', 'sigma must be above 0'),
  ],
)
def test_a_wrong_spec_is_named(spec, message):
  with pytest.raises(ValueError, match=message):
    inputs.make(spec)


class _Config(dict):
  __getattr__ = dict.__getitem__
