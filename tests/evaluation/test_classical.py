import sys
import types

import numpy as np
import pytest

from jaxinpaint.evaluation import classical


def batch(photographs, size=40):
  image = np.stack([p[:size, :size] for p in photographs]).astype(np.float32) / 255
  mask = np.zeros((3, size, size, 1), np.float32)
  mask[0, 10:22, 8:20] = 1
  mask[1, 5:9, 30:] = 1
  mask[2, 30:, 12:30] = 1
  return image, mask, np.arange(3, dtype=np.int32)


def test_biharmonic_continues_a_plane_exactly():
  y, x = np.mgrid[:24, :24] / 24
  image = np.stack([y, x, (x + y) / 2], -1)[None].astype(np.float32)
  mask = np.zeros((1, 24, 24, 1), np.float32)
  mask[:, 8:15, 6:17] = 1
  output = classical.biharmonic(image * (1 - mask), mask, np.arange(1))
  np.testing.assert_allclose(output, image, atol=1e-5)


def test_biharmonic_keeps_known_pixels_and_does_not_look_into_the_hole(photographs):
  image, mask, ids = batch(photographs)
  output = classical.biharmonic(image, mask, ids)
  assert output.dtype == np.float32 and 0 <= output.min() and output.max() <= 1
  np.testing.assert_array_equal(np.where(mask > 0, 0, output), np.where(mask > 0, 0, image))
  hidden = np.where(mask > 0, np.float32(1), image)
  np.testing.assert_array_equal(output, classical.biharmonic(hidden, mask, ids))
  # Rows do not depend on each other.
  np.testing.assert_array_equal(output[1:2], classical.biharmonic(image[1:2], mask[1:2], ids[1:2]))


@pytest.mark.parametrize('name', ['mean', 'telea', 'ns', 'biharmonic'])
def test_holes_of_nothing_and_of_everything(name):
  image = np.full((3, 16, 16, 3), 0.25, np.float32)
  mask = np.zeros((3, 16, 16, 1), np.float32)
  mask[1], mask[2] = 1, 1
  mask[2, 7, 7] = 0  # one known pixel
  output = classical.FILLS[name].function(image * (1 - mask), mask, np.arange(3))
  assert np.isfinite(output).all() and output.shape == image.shape
  np.testing.assert_array_equal(output[0], image[0])
  np.testing.assert_array_equal(output[2, 7, 7], image[2, 7, 7])


def test_fills_by_name():
  assert list(classical.FILLS) == ['mean', 'telea', 'ns', 'biharmonic', 'patchmatch']
  assert classical.get(['ns', 'biharmonic']) == {
    'Navier-Stokes': classical.navier_stokes,
    'biharmonic': classical.biharmonic,
  }
  assert list(classical.PREDICTORS) == ['mean fill', 'Telea', 'Navier-Stokes']
  with pytest.raises(ValueError, match=r"unknown fill 'criminisi'; there are: mean, telea, ns, "):
    classical.get(['mean', 'criminisi'])


def test_a_missing_library_names_the_command(monkeypatch):
  monkeypatch.setitem(sys.modules, 'patchmatch', None)  # import fails
  with pytest.raises(ValueError, match=r"'patchmatch' needs the library pypatchmatch.*pip install"):
    classical.get(['mean', 'patchmatch'])
  assert classical.get(['mean', 'biharmonic'])  # the others are not in its way
  with pytest.raises(ValueError, match='pip install'):
    classical.patchmatch(np.zeros((1, 8, 8, 3)), np.ones((1, 8, 8, 1)), np.arange(1))
  broken = types.SimpleNamespace(patchmatch_available=False)
  monkeypatch.setitem(sys.modules, 'patchmatch', broken)
  with pytest.raises(ValueError, match=r'native code of pypatchmatch, which cannot be loaded'):
    classical.get(['patchmatch'])


def test_what_patchmatch_is_given(monkeypatch, photographs):
  """The library's part is played: 8-bit picture without its hole, seed 0, patches of 7 x 7."""
  seen = []

  def inpaint(image, mask, patch_size):
    seen.append((image, mask, patch_size))
    return np.full_like(image, 51)

  seeds = []
  library = types.SimpleNamespace(
    inpaint=inpaint, set_random_seed=seeds.append, patchmatch_available=True
  )
  monkeypatch.setitem(sys.modules, 'patchmatch', library)
  image, mask, ids = batch(photographs)
  mask[1] = 0
  output = classical.patchmatch(image, mask, ids)
  np.testing.assert_allclose(output, np.where(mask > 0, 0.2, image), atol=1e-7)
  assert len(seen) == 2 and seeds == [0, 0] and {s[2] for s in seen} == {3}
  for given, hole, _ in seen:
    assert given.dtype == np.uint8 and hole.dtype == bool and not given[hole].any()


def test_patchmatch_copies_texture(photographs):
  pytest.importorskip('patchmatch', reason="needs pip install 'jaxinpaint[fills]'")
  image, mask, ids = batch(photographs)
  output = classical.patchmatch(image, mask, ids)
  np.testing.assert_array_equal(np.where(mask > 0, 0, output), np.where(mask > 0, 0, image))
  np.testing.assert_array_equal(output, classical.patchmatch(image, mask, ids))
  hidden = np.where(mask > 0, np.float32(1), image)
  np.testing.assert_array_equal(output, classical.patchmatch(hidden, mask, ids))
  # Stripes go on through the hole, where every smooth fill is grey.
  stripes = np.broadcast_to((np.arange(40) // 2 % 2)[None, None, :, None], (1, 40, 40, 3))
  stripes = stripes.astype(np.float32)
  hole = mask[:1]
  error = np.abs(classical.patchmatch(stripes * (1 - hole), hole, ids[:1]) - stripes)
  smooth = np.abs(classical.biharmonic(stripes * (1 - hole), hole, ids[:1]) - stripes)
  assert error[hole[..., 0] > 0].mean() < 0.5 * smooth[hole[..., 0] > 0].mean()
