"""Reads LevelDB's table files, in which TensorFlow keeps the index of a checkpoint.

The format is that of LevelDB's doc/table_format.md. The last 48 bytes point to an index block,
whose values point to data blocks; a block is a run of entries whose keys leave out what they share
with the key before, followed by the places where they share nothing, a compression type and a
checksum. This reader takes everything in order, so it needs none of those places.
"""

from collections.abc import Iterator

import google_crc32c

from jaxinpaint.weights.formats.tensors import UnsafeFileError

MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')
FOOTER = 48
_TRAILER = 5  # compression type, checksum
_MAX_ENTRIES = 1_000_000
_SNAPPY = 1


def checksum_fits(data: bytes, stored: int) -> bool:
  """Whether `stored` is the CRC-32C of the data, in LevelDB's masked form (as in all its files)."""
  rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
  return google_crc32c.value(data) == (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
  """(value, place after it) of the base-128 number at `at`; below 2**64.

  Raises:
    UnsafeFileError: it runs past the end of `data`, or is over ten bytes long.
  """
  value = 0
  for i in range(10):
    if at + i >= len(data):
      raise UnsafeFileError('the index is damaged: a number goes past the end of its block')
    byte = data[at + i]
    value |= (byte & 0x7F) << (7 * i)
    if byte < 0x80:
      return value & 0xFFFFFFFFFFFFFFFF, at + i + 1
  raise UnsafeFileError('the index is damaged: a number is over ten bytes long')


def entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
  """(key, value) of a whole table file, by rising keys.

  Raises:
    UnsafeFileError: it is no table, damaged, truncated, or compressed.
  """
  if len(table) < FOOTER or table[-8:] != MAGIC:
    raise UnsafeFileError(
      'the index does not end as an index of TensorFlow does: it is truncated or another file'
    )
  footer = table[-FOOTER:-8]
  place, at = _handle(footer, 0)
  for _ in _block(table, *place):  # the metaindex: not needed, but its checksum is checked
    pass
  place, _ = _handle(footer, at)
  count, last = 0, None
  for _, value in _block(table, *place):
    place, at = _handle(value, 0)
    if at != len(value):
      raise UnsafeFileError('the index is damaged: the place of a block is longer than two numbers')
    for key, value in _block(table, *place):
      count += 1
      if count > _MAX_ENTRIES:
        raise UnsafeFileError(f'the index holds over {_MAX_ENTRIES} entries')
      if last is not None and key <= last:
        raise UnsafeFileError(f'the index is damaged: {key!r} comes after {last!r}')
      last = key
      yield key, value


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
  offset, at = varint(data, at)
  size, at = varint(data, at)
  return (offset, size), at


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
  end = offset + size
  if end + _TRAILER > len(table) - FOOTER:
    raise UnsafeFileError('the index is damaged: a block reaches past the end of the file')
  if not checksum_fits(table[offset : end + 1], int.from_bytes(table[end + 1 : end + 5], 'little')):
    raise UnsafeFileError('the index is damaged: the checksum of a block is wrong')
  if table[end]:
    kind = 'Snappy' if table[end] == _SNAPPY else f'type {table[end]}'
    raise UnsafeFileError(
      f'the index is compressed ({kind}), as TensorFlow 1.0 and 1.1 wrote it: load and save the '
      'checkpoint again with a later TensorFlow'
    )
  block = table[offset:end]
  restarts = int.from_bytes(block[-4:], 'little')
  stop = size - 4 * (restarts + 1)
  if size < 4 or stop < 0:
    raise UnsafeFileError('the index is damaged: a block is shorter than its own list of places')
  block, at, key = block[:stop], 0, b''
  while at < stop:
    shared, at = varint(block, at)
    own, at = varint(block, at)
    length, at = varint(block, at)
    if shared > len(key) or at + own + length > stop:
      raise UnsafeFileError('the index is damaged: an entry reaches past its block')
    key = key[:shared] + block[at : at + own]
    at += own
    yield key, block[at : at + length]
    at += length
