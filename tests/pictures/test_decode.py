import io
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxinpaint.inference import picture
from jaxinpaint.masks import files
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
  assert decode.plain_jpeg(path.read_bytes())
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
  assert not decode.plain_jpeg(data[: int(len(data) * kept)])
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


def jpeg(image, **kwargs):
  out = io.BytesIO()
  (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, 'JPEG', **kwargs)
  return out.getvalue()


def kinds_of_jpeg(photo):
  """{name: bytes} of files that a decoder may take in another way than the next."""
  exif = Image.Exif()
  exif[0x0112] = 6
  odd, plain = photo[:61, :83], jpeg(photo, quality=80)
  files = {f'{q} {s}': jpeg(odd, quality=q, subsampling=s) for q in (20, 90) for s in range(3)}
  for sampling in ('111111', '211111', '221111', '121111', '411111'):
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, int(sampling, 16)]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, 3]
    files[f'sampling {sampling}'] = cv2.imencode('.jpg', odd, options)[1].tobytes()
  png = io.BytesIO()
  Image.fromarray(photo).save(png, 'PNG')
  start = plain.index(b'\xff\xc0')
  return files | {
    'grey': jpeg(odd[..., 0]),
    'progressive': jpeg(odd, progressive=True),
    'turned': jpeg(odd, exif=exif),
    'rgb inside': jpeg(odd, keep_rgb=True),
    'cmyk': jpeg(Image.fromarray(odd).convert('CMYK')),
    'png': png.getvalue(),
    '12 bits': plain[: start + 4] + b'\x0c' + plain[start + 5 :],
    'truncated': plain[: len(plain) // 2],
    'truncated, with an end': plain[: len(plain) // 2] + b'\xff\xd9',
    'junk before the end': plain[:-2] + b'abcd' + plain[-2:],
    'damaged': plain[: len(plain) // 2] + b'\xff\xd0\x12' + plain[len(plain) // 2 + 3 :],
    'no pixels': plain[: start + 30] + b'\xff\xd9',
  }


def outcome(data):
  """(pixels, or None; the sentence if there are none) of a file."""
  try:
    return decode.decode(data, 'x.jpg'), ''
  except decode.UnreadableImage as error:
    return None, str(error)


def test_simplejpeg_and_opencv_give_the_same_bits_and_sentences(photo, monkeypatch):
  pytest.importorskip('simplejpeg')
  files = kinds_of_jpeg(photo)
  assert decode.simplejpeg is not None
  ours = {name: outcome(data) for name, data in files.items()}
  monkeypatch.setattr(decode, 'simplejpeg', None)
  for name, data in files.items():
    pixels, sentence = outcome(data)
    np.testing.assert_array_equal(ours[name][0], pixels, err_msg=name)
    assert ours[name][1] == sentence
  unreadable = {name for name, (pixels, _) in ours.items() if pixels is None}
  assert unreadable == {'12 bits', 'truncated', 'no pixels'}
  assert ours['turned'][0].shape == (83, 61, 3)


class OtherDecoder:
  """In the place of simplejpeg."""

  def __init__(self, answer):
    self.answer = answer

  def decode_jpeg(self, data, colorspace):
    assert colorspace == 'RGB'
    if isinstance(self.answer, Exception):
      raise self.answer
    return self.answer


def test_simplejpeg_decodes_plain_jpegs_alone(photo, monkeypatch):
  files = kinds_of_jpeg(photo)
  answer = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
  monkeypatch.setattr(decode, 'simplejpeg', OtherDecoder(answer))
  np.testing.assert_array_equal(decode.decode(files['90 2']), answer)
  np.testing.assert_array_equal(decode.decode(files['turned']), np.rot90(answer, -1))
  for name in ('cmyk', 'png'):
    assert decode.decode(files[name]).shape != answer.shape
  # A reduced scale is OpenCV's.
  assert decode.plain_jpeg(files['90 2']).samples(2).shape == (31, 42, 3)


@pytest.mark.parametrize('answer', [None, ValueError('a warning of libjpeg'), MemoryError()])
def test_opencv_decodes_what_simplejpeg_does_not(photo, answer, monkeypatch):
  other = OtherDecoder(answer) if answer else None
  monkeypatch.setattr(decode, 'simplejpeg', other)
  data = jpeg(photo, quality=90)
  want = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
  np.testing.assert_array_equal(decode.decode(data), want)


@pytest.mark.parametrize('reduction', [2, 4, 8])
@pytest.mark.parametrize('subsampling', [0, 2])
def test_a_reduced_scale_is_nearly_the_mean_of_the_pixels(photographs, reduction, subsampling):
  for photo in photographs:
    data = jpeg(photo, quality=90, subsampling=subsampling)
    got = decode.plain_jpeg(data).samples(reduction).astype(int)
    height, width = (n // reduction for n in photo.shape[:2])
    want = decode.decode(data).reshape(height, reduction, width, reduction, 3).mean((1, 3))
    # Measured on these: 0.45 to 1.40 levels, 40.3 to 52.9 dB; half a reduced pixel aside to 27.1.
    assert np.abs(got - want).mean() < 1.5
    assert 10 * np.log10(255**2 / ((got - want) ** 2).mean()) > 38
  odd = decode.plain_jpeg(jpeg(photographs[0][:61, :83])).samples(reduction)
  assert odd.shape == (-(-61 // reduction), -(-83 // reduction), 3)


def test_opencv_does_not_thread():
  assert cv2.getNumThreads() == 1


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{}"/></x:xmpmeta>'


@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize(('exif', 'xmp'), [(None, 3), (None, 6), (1, 6), (6, 3), (9, 8)])
def test_orientation_is_exifs_alone(tmp_path, photo, extension, exif, xmp):
  photo = photo[:40, :64]
  path, packet, tags = tmp_path / f'x.{extension}', XMP.format(xmp), Image.Exif()
  if exif:
    tags[0x0112] = exif
  options = {'xmp': packet.encode(), 'exif': tags}
  if extension == 'png':
    text = PngImagePlugin.PngInfo()
    text.add_itxt('XML:com.adobe.xmp', packet)
    options = {'pnginfo': text, 'exif': tags}
  elif extension == 'tif':
    tags[700] = packet.encode()
    options = {'exif': tags}
  else:
    options['quality'] = 98
  save(path, photo, **options)
  want = np.rot90(photo, -1) if exif == 6 else photo
  got = decode.read_image(path)
  assert got.shape == want.shape and decode.size_of(path) == want.shape[:2]
  assert np.abs(got.astype(int) - want).mean() < 3
  filled = picture.read(path)  # what inference fills
  assert np.abs(filled.rgb() * 255 - got).max() < 2.01  # JPEG: two decoders
  if extension == 'jpg':  # OpenCV is the measure where it turns pictures by itself
    near(cv2.imread(str(path))[..., ::-1], got, 0)


@pytest.mark.parametrize('name', ['g.png', 'g.tif', 'c.png', 'c.tif', 'a.png', 'i.tif', 'f.tif'])
def test_depth_is_the_files(tmp_path, name):
  """A picture so dark that its values would fit another depth stays dark, in every use."""
  grey = (np.arange(32 * 48) % 250).astype(np.uint16).reshape(32, 48)
  path = tmp_path / name
  if name[0] in 'if':
    save(path, grey.astype(np.int32) if name[0] == 'i' else np.float32(grey / 65535))
  else:
    channels = {'g': [grey], 'c': [grey] * 3, 'a': [grey] * 3 + [grey * 0 + 65535]}[name[0]]
    assert cv2.imwrite(str(path), np.squeeze(np.dstack(channels)))
  got = decode.read_image(path)
  assert got.max() == 1 and got[0, 0, 0] == 0  # 249 of 65535 is 0.97 of 255
  np.testing.assert_allclose(picture.read(path).rgb()[..., 0] * 65535, grey, atol=0.01)


def test_a_mask_may_have_two_values_of_another_depth(tmp_path, photo):
  hole = photo[..., 0] > 127
  assert cv2.imwrite(str(tmp_path / 'm.png'), np.uint16(255) * hole)
  assert np.array_equal(files.read_mask(tmp_path / 'm.png', warn=None), hole)


def test_values_beyond_white_are_refused(tmp_path):
  path = save(tmp_path / 'f.tif', np.full((4, 4), 200, np.float32))
  with pytest.raises(decode.UnreadableImage, match='run from 200 to 200, but in a float picture'):
    decode.read_image(path)


def test_12_bits(tmp_path):
  grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
  pairs = grey.reshape(64, 32, 2)
  packed = np.stack(
    [pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], -1
  )
  entries = ((256, 64), (257, 64), (258, 12), (259, 1), (262, 1), (273, 8), (278, 64), (279, 6144))
  tags = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in entries)
  data = packed.astype(np.uint8).tobytes()
  head = struct.pack('<2sHI', b'II', 42, 8 + len(data))
  (tmp_path / 'x.tif').write_bytes(head + data + struct.pack('<H', 8) + tags + bytes(4))
  got = decode.read_image(tmp_path / 'x.tif')[..., 0]
  assert np.abs(got - grey / 4095 * 255).max() <= 0.51


@pytest.mark.parametrize('depth', [8, 16])
def test_long_profiles_and_texts_of_a_png_are_read(tmp_path, photo, depth, monkeypatch):
  limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
  path, chunk = tmp_path / 'x.png', PngImagePlugin.putchunk
  samples = photo.astype(f'>u{depth // 8}') * (1 if depth == 8 else 257)
  rows = b''.join(b'\0' + row.tobytes() for row in samples)
  with open(path, 'wb') as file:
    file.write(b'\x89PNG\r\n\x1a\n')
    chunk(file, b'IHDR', struct.pack('>IIBBBBB', *photo.shape[1::-1], depth, 2, 0, 0, 0))
    chunk(file, b'iCCP', b'profile\0\0' + zlib.compress(bytes(9 << 20)))
    chunk(file, b'zTXt', b'text\0\0' + zlib.compress(b'a' * (2 << 20)))
    chunk(file, b'IDAT', zlib.compress(rows))
    chunk(file, b'tEXt', b'more\0' + b'a' * (2 << 20))
    chunk(file, b'IEND', b'')
  assert np.array_equal(decode.read_image(path), photo)
  again = picture.decode_picture(picture.read(path).encode('PNG'), 'again.png')
  assert again.keep['icc_profile'] == bytes(9 << 20)
  monkeypatch.setattr(decode, '_TEXT_BYTES', 1 << 20)
  with pytest.raises(decode.UnreadableImage, match='texts or profile take more than 1 MB; save it'):
    picture.read(path)
  assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == limits


@pytest.mark.parametrize('extension', ['png', 'jpg'])
def test_the_limit_of_pixels_is_ours_and_said(tmp_path, photo, extension, monkeypatch):
  path = save(tmp_path / f'x.{extension}', photo)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  assert decode.read_image(path).shape == photo.shape
  assert picture.read(path).size == decode.size_of(path) == photo.shape[:2]
  assert Image.MAX_IMAGE_PIXELS == 100
  monkeypatch.setenv('JAXINPAINT_MAX_MEGAPIXELS', '0.001')
  for read in (decode.read_image, picture.read):
    with pytest.raises(
      decode.UnreadableImage, match=r'more than the limit of 0.001.*megapixels=1$'
    ):
      read(path)
