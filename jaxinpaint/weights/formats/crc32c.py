"""CRC-32C (Castagnoli), the checksum in TensorFlow's files.

The polynomial is 0x1EDC6F41, reflected, as in RFC 3720 (iSCSI), appendix B.4. Long data is cut into
lanes that numpy takes through the table side by side, and whose checksums are joined afterwards:
the register after a lane depends on the register before it by a linear map over bits.
"""

import numpy as np

_LANES = 4096
_SHORT = 2048  # bytes up to which the plain loop is as fast


def _make_table() -> np.ndarray:
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
  return table


_TABLE = _make_table()
_PLAIN_TABLE = _TABLE.tolist()


def crc32c(data: bytes | bytearray | memoryview | np.ndarray) -> int:
  """The checksum of bytes (an array is taken as its memory)."""
  data = np.frombuffer(data, np.uint8)
  register = 0xFFFFFFFF
  if len(data) > _SHORT:
    lanes = min(_LANES, len(data) // 256)
    steps = len(data) // lanes
    register = _by_lanes(register, data[: lanes * steps].reshape(lanes, steps))
    data = data[lanes * steps :]
  for byte in data.tolist():
    register = _PLAIN_TABLE[(register ^ byte) & 255] ^ (register >> 8)
  return register ^ 0xFFFFFFFF


def _by_lanes(register: int, lanes: np.ndarray) -> int:
  count, steps = lanes.shape
  # 32 more lanes of zero bytes begin with one bit each: what becomes of them is the linear map.
  state = np.zeros(count + 32, np.uint32)
  state[count:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
  for column in range(steps):
    low = (state & 255).astype(np.uint8)
    low[:count] ^= lanes[:, column]
    state = _TABLE[low] ^ (state >> 8)
  of_lanes, of_bits = state[:count].tolist(), state[count:].tolist()
  for own in of_lanes:
    carried = 0
    for bit in range(32):
      if register >> bit & 1:
        carried ^= of_bits[bit]
    register = carried ^ own
  return register


def unmask(stored: int) -> int:
  """The checksum that a file holds in LevelDB's masked form."""
  rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
  return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
