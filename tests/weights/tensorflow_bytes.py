"""Writes TensorFlow's checkpoint files byte by byte, so that tests can forge any of it."""

import google_crc32c
import numpy as np

MAGIC = bytes.fromhex('57fb808b247547db')


def varint(value: int) -> bytes:
  data = b''
  while value > 127:
    data, value = data + bytes([value & 127 | 128]), value >> 7
  return data + bytes([value])


def masked(data: bytes) -> int:
  return mask(google_crc32c.value(data))


def mask(crc: int) -> int:
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def field(number: int, value) -> bytes:
  """A field of a message: an integer, bytes, or ('fixed32', integer)."""
  if isinstance(value, bytes):
    return varint(number << 3 | 2) + varint(len(value)) + value
  if isinstance(value, tuple):
    return varint(number << 3 | 5) + value[1].to_bytes(4, 'little')
  return varint(number << 3) + varint(value)


def header(shards: int = 1, endianness: int = 0) -> bytes:
  return field(1, shards) + (field(2, endianness) if endianness else b'') + field(3, field(1, 1))


def entry(
  data: bytes, shape=(), dtype: int = 1, offset: int = 0, shard: int = 0, size=None, crc=None
) -> bytes:
  dims = b''.join(field(2, field(1, n)) for n in shape)
  crc = masked(data) if crc is None else crc
  place = field(3, shard) + field(4, offset) + field(5, len(data) if size is None else size)
  return field(1, dtype) + field(2, dims) + place + field(6, ('fixed32', crc))


def block(items, kind: int = 0, restart_every: int = 16) -> bytes:
  """Keys share their beginnings with the one before, but for every `restart_every`-th."""
  data, last, restarts = b'', b'', [0]
  for i, (key, value) in enumerate(items):
    shared = 0
    if i % restart_every == 0:
      restarts += [len(data)] if i else []
    else:
      while shared < min(len(key), len(last)) and key[shared] == last[shared]:
        shared += 1
    data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
    last = key
  data += b''.join(n.to_bytes(4, 'little') for n in (*restarts, len(restarts)))
  data += bytes([kind])
  return data + masked(data).to_bytes(4, 'little')


def table(items, per_block: int = 1000, kind: int = 0) -> bytes:
  """A table file of (key, value) pairs, in the order given."""
  items, data, index = list(items), b'', []
  place = lambda start, end: varint(start) + varint(end - start - 5)
  for i in range(0, len(items), per_block):
    part = items[i : i + per_block]
    start, data = len(data), data + block(part, kind)
    index.append((part[-1][0], place(start, len(data))))
  start, data = len(data), data + block([])
  footer = place(start, len(data))
  start, data = len(data), data + block(index)
  footer += place(start, len(data))
  return data + footer.ljust(40, b'\0') + MAGIC


def write(folder, arrays: dict[str, np.ndarray], name: str = 'model', **options):
  """A checkpoint of float32 arrays in one data file; returns its prefix."""
  items, data = [(b'', header())], b''
  for key in sorted(arrays):
    array = np.ascontiguousarray(arrays[key], np.float32)
    items.append((key.encode(), entry(array.tobytes(), array.shape, offset=len(data))))
    data += array.tobytes()
  (folder / f'{name}.index').write_bytes(table(items, **options))
  (folder / f'{name}.data-00000-of-00001').write_bytes(data)
  return folder / name
