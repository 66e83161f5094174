import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxinpaint.pictures import decode

FORMATS = ('jpg', 'png', 'webp', 'bmp', 'tif')


@pytest.fixture
def photo(photographs):
  return photographs[0][:64, :96].copy()


def save(path, image, **kwargs):
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image.save(path, **kwargs)
  return path


def near(a, b, tolerance=1):
  assert a.shape == b.shape and a.dtype == np.uint8
  assert np.abs(a.astype(int) - b.astype(int)).max() <= tolerance


@pytest.mark.parametrize('extension', FORMATS)
def test_formats(tmp_path, photo, extension):
  options = {'webp': {'lossless': True}, 'jpg': {'quality': 95, 'subsampling': 0}}
  path = save(tmp_path / f'x.{extension}', photo, **options.get(extension, {}))
  got = decode.read_image(path)
  if extension == 'jpg':
    assert np.abs(got.astype(int) - photo).mean() < 3
  else:
    assert np.array_equal(got, photo)


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('subsampling', [0, 2])
def test_plain_jpegs_are_the_same_by_either_decoder(tmp_path, photo, mode, subsampling):
  path = tmp_path / 'x.jpg'
  Image.fromarray(photo).convert(mode).save(path, quality=80, subsampling=subsampling)
  assert decode._is_plain_jpeg(path.read_bytes())
  near(decode.read_image(path), np.asarray(Image.open(path).convert('RGB')), 2)


def test_gray_is_repeated(tmp_path, photo):
  grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
  got = decode.read_image(save(tmp_path / 'x.png', grey))
  assert np.array_equal(got, np.repeat(grey[..., None], 3, 2))
  bilevel = decode.read_image(save(tmp_path / 'b.png', Image.fromarray(grey).convert('1')))
  assert bilevel.shape == photo.shape and set(np.unique(bilevel)) == {0, 255}


@pytest.mark.parametrize('extension', ['png', 'webp', 'tif'])
def test_alpha_is_composited_on_white(tmp_path, photo, extension):
  alpha = np.zeros(photo.shape[:2], np.uint8)
  alpha[:, 32:64], alpha[:, 64:] = 128, 255
  options = {'lossless': True, 'exact': True} if extension == 'webp' else {}
  path = save(tmp_path / f'x.{extension}', np.dstack([photo, alpha]), **options)
  got = decode.read_image(path)
  assert (got[:, :32] == 255).all()
  near(got[:, 32:64], (photo[:, 32:64] * (128 / 255) + 255 * (127 / 255)).astype(np.uint8), 2)
  assert np.array_equal(got[:, 64:], photo[:, 64:])


def test_palettes(tmp_path, photo):
  palette = Image.fromarray(photo).quantize(64)
  want = np.asarray(palette.convert('RGB'))
  assert np.array_equal(decode.read_image(save(tmp_path / 'x.png', palette)), want)
  clear = int(np.asarray(palette)[0, 0])
  got = decode.read_image(save(tmp_path / 't.png', palette, transparency=clear))
  hidden = np.asarray(palette) == clear
  assert (got[hidden] == 255).all() and np.array_equal(got[~hidden], want[~hidden])


@pytest.mark.parametrize('extension', ['jpg', 'tif'])
def test_cmyk(tmp_path, photo, extension):
  cmyk = Image.fromarray(photo).convert('CMYK')
  options = {'quality': 98, 'subsampling': 0} if extension == 'jpg' else {}
  got = decode.read_image(save(tmp_path / f'x.{extension}', cmyk, **options))
  assert np.abs(got.astype(int) - np.asarray(cmyk.convert('RGB'))).mean() < 2


def test_16_bits(tmp_path, photo):
  deep = photo.astype(np.uint16) * 257
  grey = deep[..., 0]
  for path in (tmp_path / 'g.png', tmp_path / 'g.tif'):
    assert cv2.imwrite(str(path), grey)
    assert np.array_equal(decode.read_image(path), np.repeat(photo[..., :1], 3, 2))
  for path in (tmp_path / 'c.png', tmp_path / 'c.tif'):
    assert cv2.imwrite(str(path), deep[..., ::-1])
    near(decode.read_image(path), photo)
  # A dark 16-bit picture stays dark: the file's range counts, not the picture's.
  assert cv2.imwrite(str(tmp_path / 'd.png'), (grey // 8).astype(np.uint16))
  assert decode.read_image(tmp_path / 'd.png').max() <= 32
  unit = Image.fromarray((photo[..., 0] / 255).astype(np.float32))
  near(decode.read_image(save(tmp_path / 'f.tif', unit)), np.repeat(photo[..., :1], 3, 2))


@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(tmp_path, photo, extension, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {'webp': {'lossless': True}, 'jpg': {'quality': 98, 'subsampling': 0}}
  options = {'exif': exif} | options.get(extension, {})
  path = save(tmp_path / f'x.{extension}', photo, **options)
  want = {
    1: photo,
    2: photo[:, ::-1],
    3: photo[::-1, ::-1],
    4: photo[::-1],
    5: photo.transpose(1, 0, 2),
    6: np.rot90(photo, -1),
    7: photo[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(photo),
  }[orientation]
  got = decode.read_image(path)
  assert got.shape == want.shape
  assert np.abs(got.astype(int) - want).mean() < 3


@pytest.mark.parametrize('extension', FORMATS)
@pytest.mark.parametrize('kept', [0.95, 0.5, 0.1])
def test_truncated_files_are_unreadable(tmp_path, photo, extension, kept):
  data = save(tmp_path / f'x.{extension}', photo).read_bytes()
  # Whether OpenCV refuses a cut JPEG depends on its version: it must not be asked.
  assert not decode._is_plain_jpeg(data[: int(len(data) * kept)])
  path = tmp_path / f'cut.{extension}'
  path.write_bytes(data[: int(len(data) * kept)])
  with pytest.raises(decode.UnreadableImage, match='cut') as error:
    decode.read_image(path)
  assert error.value.path == str(path) and error.value.why
  again = pickle.loads(pickle.dumps(error.value))  # from a worker process to the main one
  assert (again.path, again.why, str(again)) == (str(path), error.value.why, str(error.value))


@pytest.mark.parametrize(
  'content,why', [(b'', r'0 bytes'), (b'<html>', 'no known image format'), (None, 'No such file')]
)
def test_no_images(tmp_path, content, why):
  path = tmp_path / 'x.jpg'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(decode.UnreadableImage, match=why):
    decode.read_image(path)
  with pytest.raises(decode.UnreadableImage, match='directory'):
    decode.read_image(tmp_path)


def test_jpeg_with_junk_before_its_end(tmp_path, photo):
  data = save(tmp_path / 'x.jpg', photo).read_bytes()
  (tmp_path / 'zeros.jpg').write_bytes(data + b'\0' * 20)
  near(decode.read_image(tmp_path / 'zeros.jpg'), decode.read_image(tmp_path / 'x.jpg'), 0)
  (tmp_path / 'tail.jpg').write_bytes(data + b'appended by a camera')
  near(decode.read_image(tmp_path / 'tail.jpg'), decode.read_image(tmp_path / 'x.jpg'), 2)


def test_opencv_does_not_thread():
  assert cv2.getNumThreads() == 1
