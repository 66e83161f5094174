"""TensorFlow's checkpoints without TensorFlow.

fixtures/tensorflow was written by TensorFlow 2.21 itself: v1 by tf.compat.v1.train.Saver, v2 by
tf.train.Checkpoint, sharded by two SaveV2 and a MergeV2Checkpoints, sliced by a Saver of a variable
under tf.compat.v1.fixed_size_partitioner(2). v1/checkpoint was edited to name another folder.
"""

import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from tensorflow_bytes import block, entry, field, header, mask, masked, table, varint, write

from jaxinpaint.weights import reader
from jaxinpaint.weights.formats import sorted_table
from jaxinpaint.weights.reader import UnsafeFileError

FIXTURES = pathlib.Path(__file__).parent / 'fixtures' / 'tensorflow'
KERNEL = np.arange(150, dtype=np.float32).reshape(5, 5, 2, 3) / 8
BIAS = np.array([-1.5, 0, 2.25], np.float32)
HALF = np.array([[0.5, -2], [65504, 1e-3]], np.float16)
V1 = {
  'brain': np.array([1, -3.140625, 1e30], ml_dtypes.bfloat16),
  'counts': np.array([[1, -2, 3]], np.int32),
  'double': np.array([np.pi, -1e300]),
  'empty': np.zeros((0, 4), np.float32),
  'flags': np.array([True, False]),
  'global_step': np.array(1234567890123),
  'half': HALF,
  'inpaint_net/conv1/bias': BIAS,
  'inpaint_net/conv1/kernel': KERNEL,
}


def assert_same(got, want):
  assert list(got) == list(want)
  for name, array in want.items():
    assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
    np.testing.assert_array_equal(got[name], array, err_msg=name)
    assert got[name].flags.writeable


def test_a_saver_of_tensorflow_1():
  assert_same(reader.read(FIXTURES / 'v1' / 'snap-10000'), V1)


def test_every_way_to_name_a_checkpoint():
  folder = FIXTURES / 'v1'
  for path in (
    folder,  # its text names a folder of another machine
    folder / 'checkpoint',
    folder / 'snap-10000.index',
    folder / 'snap-10000.data-00000-of-00001',
    folder / 'snap-10000.meta',  # the graph, which nobody needs
    str(folder / 'snap-10000'),
    FIXTURES / 'sharded',  # no text, but a single index
  ):
    assert 'inpaint_net/conv1/kernel' in reader.read(path)
  names = {p.name for p in reader.files(FIXTURES / 'sharded' / 'model')}
  assert names == {f'model.{n}' for n in ('index', 'data-00000-of-00002', 'data-00001-of-00002')}


def test_several_data_files():
  want = {k: V1[k] for k in ('global_step', 'half', 'inpaint_net/conv1/bias')}
  want['inpaint_net/conv1/kernel'] = KERNEL
  assert_same(reader.read(FIXTURES / 'sharded' / 'model'), want)


def test_a_checkpoint_of_objects_in_tensorflow_2():
  got = reader.read(FIXTURES / 'v2')
  value = '.ATTRIBUTES/VARIABLE_VALUE'
  want = {
    f'generator/bias/{value}': np.arange(8, dtype=np.float32),
    f'generator/kernel/{value}': np.linspace(-1, 1, 216, dtype=np.float32).reshape(3, 3, 3, 8),
    f'save_counter/{value}': np.array(1),
    f'step/{value}': np.array(7),
  }
  assert_same(got, want)
  rows = {k: (shape, dtype) for k, shape, dtype in reader.describe(FIXTURES / 'v2')}
  assert rows['_CHECKPOINTABLE_OBJECT_GRAPH'] == ((), 'text')
  assert rows[f'generator/kernel/{value}'] == ((3, 3, 3, 8), 'float32')


def test_only_the_wanted_variables_are_read(tmp_path):
  prefix = write(tmp_path, {'a': KERNEL, 'b': BIAS})
  data = tmp_path / 'model.data-00000-of-00001'
  damaged = bytearray(data.read_bytes())
  damaged[0] ^= 1
  data.write_bytes(damaged)
  assert_same(reader.read(prefix, only=lambda name: name == 'b'), {'b': BIAS})
  with pytest.raises(UnsafeFileError, match=r"model is refused: the checksum of 'a' is wrong"):
    reader.read(prefix)


def test_sliced_variables_are_refused_by_name():
  with pytest.raises(UnsafeFileError, match="'embedding' is a variable kept in slices"):
    reader.read(FIXTURES / 'sliced' / 'model')


def test_an_index_of_many_blocks(tmp_path):
  arrays = {f'scope/layer_{i:03}/{k}': np.full(2, i) for i in range(60) for k in ('a', 'kernel')}
  got = reader.read(write(tmp_path, arrays, per_block=7))
  assert_same(got, {k: arrays[k].astype(np.float32) for k in sorted(arrays)})


def test_big_endian_files(tmp_path):
  data = BIAS.astype('>f4').tobytes()
  rows = [(b'', header(endianness=1)), (b'x', entry(data, (3,)))]
  (tmp_path / 'm.index').write_bytes(table(rows))
  (tmp_path / 'm.data-00000-of-00001').write_bytes(data)
  assert_same(reader.read(tmp_path / 'm'), {'x': BIAS})


# RFC 3720, B.4, and the empty string.
@pytest.mark.parametrize(
  ('data', 'want'),
  [
    (b'', 0),
    (bytes(32), 0x8A9136AA),
    (b'\xff' * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
  ],
)
def test_checksums(data, want):
  assert sorted_table.checksum_fits(data, mask(want))
  assert not sorted_table.checksum_fits(data, mask(want ^ 1))
  assert not sorted_table.checksum_fits(data, want)


def save(folder, rows, data=bytes(64), **options):
  (folder / 'm.index').write_bytes(table(rows, **options))
  (folder / 'm.data-00000-of-00001').write_bytes(data)
  return folder / 'm'


FOUR = bytes(16)
HEAD = (b'', header())
FORGED = {
  'no header': ([(b'x', entry(FOUR, (4,)))], 'lacks its header'),
  'nothing': ([], 'lacks its header'),
  'no data files': ([(b'', header(0))], '0 data files'),
  'many data files': ([(b'', header(10**9))], '1000000000 data files'),
  'byte order': ([(b'', header(1, 2))], 'byte order 2'),
  'shape': ([HEAD, (b'x', entry(FOUR, (5,)))], r"'x' has 16 bytes, but the shape \(5,\)"),
  'negative side': ([HEAD, (b'x', entry(FOUR, (2**64 - 1,)))], 'too much'),
  'huge empty': ([HEAD, (b'x', entry(b'', (0, 2**62, 2**62)))], 'too much'),
  'axes': ([HEAD, (b'x', entry(FOUR, (1,) * 17))], '17 axes'),
  'past the end': ([HEAD, (b'x', entry(bytes(68), (17,)))], "'x' ends at byte 68"),
  'offset': ([HEAD, (b'x', entry(FOUR, (4,), offset=2**63))], 'truncated'),
  'shard': ([HEAD, (b'x', entry(FOUR, (4,), shard=1))], 'data file 1 of 1'),
  'type': ([HEAD, (b'x', entry(FOUR, (4,), dtype=20))], "'x' is of TensorFlow type 20"),
  'checksum': ([HEAD, (b'x', entry(FOUR, (4,), crc=1))], "checksum of 'x' is wrong"),
  'order': ([HEAD, (b'y', entry(FOUR, (4,))), (b'x', entry(FOUR, (4,)))], "b'x' comes after b'y'"),
  'twice': ([HEAD, (b'x', entry(FOUR, (4,))), (b'x', entry(FOUR, (4,)))], 'comes after'),
  'no text': ([HEAD, (b'\xff', entry(FOUR, (4,)))], 'is no name'),
  'group': ([HEAD, (b'x', b'\x0b')], 'wire type 3'),
  'field type': ([HEAD, (b'x', field(1, b'abc'))], 'of another type'),
  'field length': ([HEAD, (b'x', field(2, b'abc')[:-1])], 'past its message'),
  'unknown rank': ([HEAD, (b'x', field(1, 1) + field(2, field(3, 1)))], 'number of axes'),
  'overlap': (
    [HEAD, *((b'%03d' % i, entry(bytes(64), (16,))) for i in range(9))],
    '8 times as large',
  ),
}


@pytest.mark.parametrize('case', FORGED)
def test_forged_indices_are_refused(case, tmp_path):
  rows, why = FORGED[case]
  prefix = save(tmp_path, rows)
  with pytest.raises(UnsafeFileError, match=rf'm is refused: .*{why}'):
    reader.read(prefix)


def test_a_compressed_index_is_refused(tmp_path):
  prefix = save(tmp_path, [HEAD, (b'x', entry(FOUR, (4,)))], kind=1)
  with pytest.raises(UnsafeFileError, match='is compressed'):
    reader.read(prefix)


@pytest.mark.parametrize(
  ('body', 'why'),
  [
    (b'\x01\x01\x00k', 'past its block'),  # shares a byte with no key
    (b'\x00\x09\x00k', 'past its block'),
    (b'\x00\x01\x80', 'past the end of its block'),
    (b'\xff' * 11, 'over ten bytes'),
  ],
)
def test_forged_blocks_are_refused(body, why):
  forged = body + (0).to_bytes(4, 'little') + (1).to_bytes(4, 'little') + b'\0'
  forged += masked(forged).to_bytes(4, 'little')
  empty = block([])
  index = block([(b'z', varint(0) + varint(len(forged) - 5))])
  footer = varint(len(forged)) + varint(len(empty) - 5)
  footer += varint(len(forged + empty)) + varint(len(index) - 5)
  whole = forged + empty + index + footer.ljust(40, b'\0') + sorted_table.MAGIC
  with pytest.raises(UnsafeFileError, match=why):
    list(sorted_table.entries(whole))


def test_missing_files_are_named(tmp_path):
  shutil.copytree(FIXTURES / 'sharded', tmp_path / 'a')
  (tmp_path / 'a' / 'model.data-00001-of-00002').unlink()
  with pytest.raises(FileNotFoundError, match=r'model\.data-00001-of-00002: no such file'):
    reader.read(tmp_path / 'a')
  (tmp_path / 'a' / 'model.index').unlink()
  with pytest.raises(FileNotFoundError, match='without a TensorFlow checkpoint'):
    reader.read(tmp_path / 'a')
  with pytest.raises(FileNotFoundError, match=r'model\.index: no such file'):
    reader.read(tmp_path / 'a' / 'model.data-00000-of-00002')
  with pytest.raises(FileNotFoundError, match='model: no such file'):
    reader.read(tmp_path / 'a' / 'model')
  (tmp_path / 'a' / 'checkpoint').write_text('model_checkpoint_path: "gone-5"\n')
  with pytest.raises(FileNotFoundError, match=r"names the checkpoint 'gone-5', but gone-5\.index"):
    reader.read(tmp_path / 'a')


def test_a_folder_of_several_checkpoints_asks_which(tmp_path):
  for name in ('snap-1', 'snap-2'):
    write(tmp_path, {'x': BIAS}, name)
  with pytest.raises(ValueError, match='several checkpoints, name one: snap-1, snap-2'):
    reader.read(tmp_path)
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "snap-2"\n')
  assert {p.name.split('.')[0] for p in reader.files(tmp_path)} == {'snap-2'}


def test_a_checkpoint_of_the_first_version_is_told_from_other_files(tmp_path):
  (tmp_path / 'model.ckpt').write_bytes(table([(b'', b'x')]))
  with pytest.raises(UnsafeFileError, match='checkpoint of the first version'):
    reader.read(tmp_path / 'model.ckpt')


def copied(tmp_path):
  shutil.copytree(FIXTURES / 'v1', tmp_path / 'v1')
  return [tmp_path / 'v1' / f'snap-10000.{n}' for n in ('index', 'data-00000-of-00001')]


def test_truncated_files_are_refused(tmp_path):
  for path in copied(tmp_path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
      path.write_bytes(whole[:length])
      with pytest.raises(UnsafeFileError, match=r'snap-10000 is refused: .*truncated'):
        reader.read(tmp_path / 'v1')
    path.write_bytes(whole)


def test_damage_is_noticed_wherever_it_is(tmp_path):
  """Checksums cover the blocks and the data; the footer's padding alone may hold anything."""
  for path in copied(tmp_path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
      damaged = bytearray(whole)
      end = len(whole) - (sorted_table.FOOTER if path.suffix == '.index' else 0)
      damaged[rng.integers(end)] ^= 1 << int(rng.integers(8))
      path.write_bytes(damaged)
      with pytest.raises(UnsafeFileError):
        reader.read(tmp_path / 'v1')
    path.write_bytes(whole)


def test_random_indices_with_right_checksums_are_read_or_refused(tmp_path):
  """Forgers compute checksums too: damage below them ends in a result or a refusal."""
  values = [header(), *(entry(FOUR, (2, 2), offset=16 * i) for i in range(3))]
  rng = np.random.default_rng(1)
  refused = 0
  for _ in range(300):
    rows = []
    for key, value in zip((b'', b'a', b'b', b'c'), values, strict=True):
      value = bytearray(value)
      if rng.random() < 0.5:
        value[rng.integers(len(value))] = rng.integers(256)
      rows.append((key, bytes(value)))
    try:
      reader.read(save(tmp_path, rows))
    except (UnsafeFileError, FileNotFoundError):
      refused += 1
  assert 50 < refused < 300
