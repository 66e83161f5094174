"""The metadata of an image file, copied as raw bytes from file to file.

EXIF blocks and TIFF files have the same structure (TIFF 6.0, section 2; Exif 2.32, section 4.5): a
header and a chain of tables of 12-byte entries. This module changes single entries in place, so
that everything else stays as it was.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from absl import logging
from PIL import Image

_ORIENTATION = 0x0112
_THUMBNAIL_OFFSET, _THUMBNAIL_BYTES = 0x0201, 0x0202
_EXIF_PREFIX = b'Exif\0\0'
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Chunks that stay valid when pixels in a hole change; not the palette, nor the time of change.
_PNG_KEPT = (
  *(b'cHRM', b'gAMA', b'iCCP', b'sRGB', b'cICP', b'pHYs'),
  *(b'eXIf', b'tEXt', b'zTXt', b'iTXt'),
)
# Tags that describe how this TIFF file stores its pixels; the writer makes its own. 34675 is the
# colour profile and 700 the XMP packet, which are passed on separately.
TIFF_STRUCTURE = frozenset(
  (254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284)
  + (288, 289, 290, 291, 292, 293, 301, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334)
  + (336, 337, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521)
  + (529, 530, 531, 532, 700, 34675)
)


def _table(block: bytes, at: int, order: str) -> tuple[dict[int, int], int]:
  """({tag: position of its entry}, position of the pointer to the next table)."""
  (count,) = struct.unpack_from(order + 'H', block, at)
  entries = {}
  for i in range(count):
    (tag,) = struct.unpack_from(order + 'H', block, at + 2 + 12 * i)
    entries[tag] = at + 2 + 12 * i
  return entries, at + 2 + 12 * count


def _header(block: bytes) -> tuple[int, str, int]:
  """(length of an 'Exif' prefix, byte order, position of the first table after the prefix)."""
  prefix = len(_EXIF_PREFIX) if block.startswith(_EXIF_PREFIX) else 0
  order = {b'II': '<', b'MM': '>'}[block[prefix : prefix + 2]]
  return prefix, order, struct.unpack_from(order + 'I', block, prefix + 4)[0]


def orientation(block: bytes) -> int:
  """The orientation, 1 to 8, of an EXIF block or a TIFF file; 1: none, or it is damaged."""
  try:
    prefix, order, first = _header(block)
    body = block[prefix:]
    entries, _ = _table(body, first, order)
    kind, _, short = struct.unpack_from(order + 'HIH', body, entries[_ORIENTATION] + 2)
    (long,) = struct.unpack_from(order + 'I', body, entries[_ORIENTATION] + 8)
  except (KeyError, struct.error):
    return 1
  value = long if kind == 4 else short
  return value if value in range(1, 9) else 1


def tiff_tags(image: Image.Image) -> bytes:
  """The tags of an opened TIFF that do not describe how pixels are stored, as an EXIF block.

  Without orientation; empty if the tags are damaged.
  """
  try:
    exif = image.getexif()
    for tag in TIFF_STRUCTURE & set(exif):
      del exif[tag]
    return set_upright(exif.tobytes()) if len(exif) else b''
  except Exception as error:  # the tags are damaged, but the picture itself may be intact
    logging.warning('TIFF tags are left out, they are damaged (%s)', error)
    return b''


def set_upright(block: bytes) -> bytes:
  """An EXIF block or a TIFF file with its orientation, if any, set to 1; unchanged if damaged."""
  try:
    prefix, order, first = _header(block)
    body = bytearray(block[prefix:])
    entries, _ = _table(body, first, order)
    if _ORIENTATION in entries:
      struct.pack_into(order + 'HIHH', body, entries[_ORIENTATION] + 2, 3, 1, 1, 0)
    return block[:prefix] + bytes(body)
  except (KeyError, struct.error):
    return block


def without_thumbnail(block: bytes) -> bytes:
  """An EXIF block without its preview, which would still show the removed content."""
  try:
    prefix, order, first = _header(block)
    body = bytearray(block[prefix:])
    _, pointer = _table(body, first, order)
    (second,) = struct.unpack_from(order + 'I', body, pointer)
    if second:
      entries, _ = _table(body, second, order)
      if _THUMBNAIL_OFFSET in entries and _THUMBNAIL_BYTES in entries:
        (start,) = struct.unpack_from(order + 'I', body, entries[_THUMBNAIL_OFFSET] + 8)
        (size,) = struct.unpack_from(order + 'I', body, entries[_THUMBNAIL_BYTES] + 8)
        end = min(start + size, len(body))
        body[start:end] = bytes(max(0, end - start))
      struct.pack_into(order + 'I', body, pointer, 0)
    return block[:prefix] + bytes(body)
  except (KeyError, struct.error):
    return block


def set_xmp_upright(packet: bytes) -> bytes:
  """An XMP packet with its tiff:Orientation, if any, set to 1."""
  packet = re.sub(rb'(tiff:Orientation\s*=\s*["\'])[2-8]', rb'\g<1>1', packet)
  return re.sub(rb'(<tiff:Orientation>\s*)[2-8]', rb'\g<1>1', packet)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """(type, content) of each chunk of a PNG file, up to IEND or the end of an incomplete file."""
  at = len(_PNG_SIGNATURE)
  while at + 8 <= len(data):
    (size,) = struct.unpack_from('>I', data, at)
    kind = data[at + 4 : at + 8]
    yield kind, data[at + 8 : at + 8 + size]
    if kind == b'IEND':
      return
    at += 12 + size


def copy_png_metadata(source: bytes, target: bytes) -> bytes:
  """`target` with the profile, gamma, resolution, EXIF and text chunks of `source`, both PNG."""
  kept = [(k, c) for k, c in png_chunks(source) if k in _PNG_KEPT]
  out = [_PNG_SIGNATURE]
  for kind, content in png_chunks(target):
    if kind not in _PNG_KEPT:
      out.append(_png_chunk(kind, content))
    if kind == b'IHDR':
      for name, value in kept:
        out.append(_png_chunk(name, without_thumbnail(value) if name == b'eXIf' else value))
  return b''.join(out)


def has_png_text(data: bytes) -> bool:
  """Whether a file is a PNG with text besides an XMP packet."""
  return data.startswith(_PNG_SIGNATURE) and any(
    kind in (b'tEXt', b'zTXt', b'iTXt') and not content.startswith(b'XML:com.adobe.xmp\0')
    for kind, content in png_chunks(data)
  )


def without_png_metadata(data: bytes) -> bytes:
  """A PNG file with the chunks alone that its pixels are made of."""
  pixels = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')
  return _PNG_SIGNATURE + b''.join(
    _png_chunk(kind, content) for kind, content in png_chunks(data) if kind in pixels
  )


def png_depth(data: bytes) -> tuple[int, int]:
  """(bits per sample, colour type) of a PNG file; (0, 0) for anything else."""
  if not data.startswith(_PNG_SIGNATURE) or len(data) < 26:
    return 0, 0
  return data[24], data[25]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
  crc = zlib.crc32(kind + content)
  return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', crc)
