"""Image files of every mode: what is not filled is stored again as it was."""

import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
import toy_system
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from jaxinpaint.inference import picture
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.pictures import decode, metadata
from jaxinpaint.pictures.decode import UnreadableImage

H, W = 23, 17
rng = np.random.default_rng(1)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
PAINT = np.broadcast_to(np.array([1.0, 0.0, 0.5], np.float32), (H, W, 3))
HOLE = toy_system.hole(H, W) > 0


def noise(*channels, dtype=np.uint8, top=256):
  return rng.integers(0, top, (H, W, *channels)).astype(dtype)


def pillow(path, array, **options):
  Image.fromarray(array).save(path, **options)


def palette(path, transparent=False):
  image = Image.fromarray(noise(3)).quantize(32)
  image.save(path, **({'transparency': 3} if transparent else {}))


def cmyk(path):
  Image.frombytes('CMYK', (W, H), noise(4).tobytes()).save(path)


def deep_tiff(path):
  tifffile.imwrite(path, noise(3, dtype=np.uint16, top=65536), photometric='rgb')


FILES = {
  'rgb.png': lambda p: pillow(p, noise(3)),
  'rgba.png': lambda p: pillow(p, noise(4)),
  'grey.png': lambda p: pillow(p, noise()),
  'grey_alpha.png': lambda p: pillow(p, noise(2)),
  'grey16.png': lambda p: pillow(p, noise(dtype=np.uint16, top=65536)),
  'rgb16.png': lambda p: cv2.imwrite(str(p), noise(3, dtype=np.uint16, top=65536)),
  'rgba16.png': lambda p: cv2.imwrite(str(p), noise(4, dtype=np.uint16, top=65536)),
  'palette.png': palette,
  'palette_transparent.png': lambda p: palette(p, transparent=True),
  'colour_key.png': lambda p: pillow(p, noise(3), transparency=(1, 2, 3)),
  'bilevel.png': lambda p: Image.fromarray(noise() > 127).save(p),
  'rgb.tif': lambda p: pillow(p, noise(3), compression='tiff_lzw'),
  'rgba.tif': lambda p: pillow(p, noise(4)),
  'cmyk.tif': cmyk,
  'grey16.tif': lambda p: pillow(p, noise(dtype=np.uint16, top=65536)),
  'float.tif': lambda p: pillow(p, noise(dtype=np.float32, top=2) * np.float32(0.731)),
  'int32.tif': lambda p: pillow(p, noise(dtype=np.int32, top=65536)),
  'rgb16.tif': deep_tiff,
  'rgb.bmp': lambda p: pillow(p, noise(3)),
  'grey.bmp': lambda p: pillow(p, noise()),
  'rgba.bmp': lambda p: cv2.imwrite(str(p), noise(4)),
  'rgb.webp': lambda p: pillow(p, noise(3), lossless=True),
  'rgba.webp': lambda p: pillow(p, noise(4), lossless=True, exact=True),
  'lossy.webp': lambda p: pillow(p, noise(3), quality=60),
}


def independently(path):
  """The samples as some other program reads them: 16-bit colour by OpenCV, the rest by Pillow."""
  if '16.' in path.name and 'rgb' in path.name:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
  image = Image.open(path)
  if image.mode in ('P', 'RGB') and image.has_transparency_data:
    image = image.convert('RGBA')
  elif image.mode in ('P', '1'):
    image = image.convert({'P': 'RGB', '1': 'L'}[image.mode])
  return np.asarray(image)


@pytest.mark.parametrize('name', FILES)
def test_known_samples_are_stored_again_exactly(name, tmp_path):
  path, out = tmp_path / name, tmp_path / ('filled_' + name)
  FILES[name](path)
  original = picture.read(path)
  assert original.rgb().shape == (H, W, 3) and original.size == (H, W)
  out.write_bytes(original.fill(PAINT, HOLE).encode(picture.FORMATS[path.suffix]))
  before, after = independently(path), independently(out)
  assert after.dtype == before.dtype and after.shape == before.shape
  assert after[~HOLE].tobytes() == before[~HOLE].tobytes()
  if original.alpha is not None:
    assert (after[..., -1] == before[..., -1]).all()
  filled = picture.read(out)
  assert filled.mode == original.mode
  # The hole has the paint, or its luminance, where alpha lets it be seen.
  seen = filled.rgb()[HOLE]
  grey = filled.mode in ('L', 'LA', 'I;16', 'I', 'F')
  want = np.full(3, 0.299 + 0.5 * 0.114) if grey else PAINT[0, 0]
  if filled.alpha is not None:
    alpha = filled.alpha[HOLE][:, None]
    want = want * alpha + 1 - alpha
  np.testing.assert_allclose(seen, np.broadcast_to(want, seen.shape), atol=4e-3)


@pytest.mark.parametrize('name', [n for n in FILES if 'rgba16' not in n])
def test_the_network_sees_what_evaluation_sees(name, tmp_path):
  path = tmp_path / name
  FILES[name](path)
  np.testing.assert_allclose(
    picture.read(path).rgb() * 255, decode.read_image(path), atol=1.01 if '16' in name else 0.51
  )


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turning_is_pillows(orientation):
  image = Image.fromarray(noise(3))
  exif = image.getexif()
  exif[0x0112] = orientation
  stored = np.asarray(image)
  out = io.BytesIO()
  image.save(out, 'PNG', exif=exif)
  upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue()))))
  assert (picture.turn(stored, orientation) == upright).all()
  assert (picture.unturn(upright, orientation) == stored).all()


@pytest.mark.parametrize('orientation', [3, 5, 6, 8])
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp', '.bmp'])
@pytest.mark.parametrize('source', ['.jpg', '.tif'])
def test_turned_photographs_are_filled_where_they_are_seen(source, suffix, orientation, tmp_path):
  path, out = tmp_path / f'in{source}', tmp_path / f'out{suffix}'
  image = Image.fromarray(np.full((32, 48, 3), 90, np.uint8))
  exif = image.getexif()
  exif[0x0112] = orientation
  exif[0x010F] = 'a camera'
  exif.get_ifd(0x8769)[0x9003] = '2024:01:02 03:04:05'
  image.save(path, exif=exif.tobytes(), icc_profile=PROFILE)
  original = picture.read(path)
  height, width = (48, 32) if orientation > 4 else (32, 48)
  assert original.size == (height, width)
  hole = np.zeros((height, width), bool)
  hole[:8, :16] = True
  paint = np.ones((height, width, 3), np.float32)
  out.write_bytes(original.fill(paint, hole).encode(picture.FORMATS[suffix]))
  saved = Image.open(out)
  seen = np.asarray(ImageOps.exif_transpose(saved).convert('RGB')).astype(int)
  assert seen.shape == (height, width, 3)
  assert (seen[:7, :15] > 240).all() and (np.abs(seen[9:, 17:] - 90) < 4).all()
  if suffix != '.bmp':
    saved = Image.open(out)  # Pillow finds a TIFF's tags only before it is loaded
    tags = saved.getexif()
    assert tags[0x010F] == 'a camera'
    assert tags.get_ifd(0x8769)[0x9003] == '2024:01:02 03:04:05'
    assert tags[0x0112] == (orientation if suffix == source == '.jpg' else 1)
    assert saved.info['icc_profile'] == PROFILE


def test_16_bit_tiff_is_turned_once(tmp_path):
  path = tmp_path / 'a.tif'
  samples = noise(3, dtype=np.uint16, top=65536)
  tifffile.imwrite(
    path, samples, photometric='rgb', extratags=[(274, 3, 1, 6, True)], metadata=None
  )
  original = picture.read(path)
  assert original.size == (W, H)
  assert (original.samples == np.rot90(samples, -1)).all()
  again = picture.decode_picture(original.encode('TIFF'), 'again.tif')
  assert again.size == (W, H) and (again.rgb() == original.rgb()).all()


def test_jpeg_stays_close_to_the_edge_of_the_hole(tmp_path, photographs):
  path = tmp_path / 'a.jpg'
  image = Image.fromarray(photographs[0])
  image.save(path, quality=71, subsampling='4:2:0', dpi=(72, 72), comment='hello', progressive=True)
  original = picture.read(path)
  hole = np.zeros(original.size, bool)
  hole[21:43, 21:43] = True
  data = original.fill(np.ones((*original.size, 3), np.float32), hole).encode('JPEG')
  before, after = Image.open(path), Image.open(io.BytesIO(data))
  assert after.info['comment'] == b'hello' and after.info['dpi'] == (72, 72)
  assert after.info.get('progressive')
  change = np.abs(np.asarray(after).astype(int) - np.asarray(before))
  assert change[~hole].max() <= 6 and change[~hole].mean() < 0.5 and change[hole].max() > 100


def test_cmyk_and_grey_jpeg(tmp_path):
  for mode, shape in (('CMYK', (H, W, 4)), ('L', (H, W))):
    path = tmp_path / f'{mode}.jpg'
    Image.frombytes(mode, (W, H), np.full(shape, 60, np.uint8).tobytes()).save(path, quality=95)
    original = picture.read(path)
    again = picture.decode_picture(original.fill(PAINT, HOLE).encode('JPEG'), 'again.jpg')
    assert again.mode == mode
    np.testing.assert_allclose(again.rgb()[:8], original.rgb()[:8], atol=0.03)


def test_png_text_gamma_and_profile_survive(tmp_path):
  path = tmp_path / 'a.png'
  text = PngImagePlugin.PngInfo()
  text.add_text('Author', 'somebody')
  text.add_itxt('Title', 'Ä title')
  text.add(b'gAMA', struct.pack('>I', 45455))
  Image.fromarray(noise(3)).save(path, pnginfo=text, icc_profile=PROFILE, dpi=(300, 300))
  data = picture.read(path).fill(PAINT, HOLE).encode('PNG')
  saved = Image.open(io.BytesIO(data))
  saved.load()
  assert saved.text == {'Author': 'somebody', 'Title': 'Ä title'}
  assert saved.info['icc_profile'] == PROFILE and saved.info['gamma'] == 0.45455
  assert round(saved.info['dpi'][0]) == 300
  assert [k for k, _ in metadata.png_chunks(data)].count(b'IHDR') == 1


def test_the_preview_of_what_was_painted_over_is_dropped():
  # Little-endian: a first table of one tag, a second one with a preview of four bytes.
  preview = b'JPEG'
  first = struct.pack('<H HHII I', 1, 0x0112, 3, 1, 6, 26)
  second = struct.pack('<H HHII HHII I', 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, 4, 0)
  block = b'Exif\0\0' + b'II*\0' + struct.pack('<I', 8) + first + second + preview
  exif = Image.Exif()
  exif.load(block)
  assert exif.get_ifd(ExifTags.IFD.IFD1)  # the test's block is one that Pillow understands
  bare = metadata.without_thumbnail(block)
  assert preview not in bare and len(bare) == len(block)
  exif = Image.Exif()
  exif.load(bare)
  assert exif[0x0112] == 6 and not exif.get_ifd(ExifTags.IFD.IFD1)
  assert metadata.without_thumbnail(b'Exif\0\0nonsense') == b'Exif\0\0nonsense'


def test_xmp_orientation_follows():
  packet = b'<x tiff:Orientation="6"/><tiff:Orientation>8</tiff:Orientation>'
  assert metadata.set_xmp_upright(packet) == (
    b'<x tiff:Orientation="1"/><tiff:Orientation>1</tiff:Orientation>'
  )


@pytest.mark.parametrize(
  ('name', 'format', 'words'),
  [
    ('rgba.png', 'JPEG', r'colour with alpha, which a JPEG file cannot hold.*\.png'),
    ('grey16.png', 'WEBP', r'16-bit grey.*\.png or \.tif'),
    ('rgb16.tif', 'BMP', r'16-bit colour.*\.png or \.tif'),
    ('cmyk.tif', 'PNG', r'CMYK.*\.jpg or \.tif'),
  ],
)
def test_formats_that_would_lose_something_are_refused(name, format, words, tmp_path):
  FILES[name](tmp_path / name)
  with pytest.raises(InpaintError, match=words):
    picture.read(tmp_path / name).encode(format)


def test_files_that_cannot_be_read(tmp_path):
  frames = [Image.fromarray(noise(3)) for _ in range(3)]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  frames[0].save(tmp_path / 'a.tif', save_all=True, append_images=frames[1:])
  for name in ('a.gif', 'a.tif'):
    with pytest.raises(UnreadableImage, match=r'3 frames; save the one'):
      picture.read(tmp_path / name)
  (tmp_path / 'a.png').write_bytes(b'no image')
  with pytest.raises(UnreadableImage, match=r'a\.png: not a readable image'):
    picture.read(tmp_path / 'a.png')
  whole = io.BytesIO()
  frames[0].save(whole, 'JPEG')
  (tmp_path / 'cut.jpg').write_bytes(whole.getvalue()[:-300])
  with pytest.raises(UnreadableImage, match=r'cut\.jpg: .*truncated'):
    picture.read(tmp_path / 'cut.jpg')
  Image.new('LAB', (4, 4)).save(tmp_path / 'lab.tif')
  with pytest.raises(UnreadableImage, match='mode LAB'):
    picture.read(tmp_path / 'lab.tif')
