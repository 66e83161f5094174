"""Files of a workdir that are damaged, cut off, or cannot be written."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
import test_checkpoints as runs

from jaxinpaint.runtime import faults
from jaxinpaint.training import checkpoints, writers
from jaxinpaint.weights import checkpoints as reading
from jaxinpaint.weights import checksums, store

toy_fields = runs.toy_fields  # what a config of the toy system has


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  folder = tmp_path_factory.mktemp('two')
  runs.saved(folder, [1, 2])
  return folder


def files_of(folder):
  return sorted(p.relative_to(folder) for p in folder.rglob('*') if p.is_file())


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize('damage', [flip, truncate, lambda path: path.unlink()])
def test_every_damaged_file_is_noticed(two, tmp_path, damage):
  newest = tmp_path / 'checkpoints' / '2'
  for file in files_of(two / 'checkpoints' / '2'):
    if file.name == '_CHECKPOINT_METADATA' or not (two / 'checkpoints/2' / file).stat().st_size:
      continue  # nobody reads it; and an empty file cannot be flipped
    if file.as_posix() == 'commit_success.txt':
      continue  # orbax writes it after the list; nobody reads it here
    shutil.rmtree(tmp_path / 'checkpoints', ignore_errors=True)
    shutil.copytree(two / 'checkpoints' / '2', newest)
    damage(newest / file)
    if file.name == checksums.NAME and damage not in (flip, truncate):
      checksums.verify(newest)  # as a checkpoint of an earlier version, which has no list
      continue
    with pytest.raises(checksums.Damaged):
      checksums.verify(newest)


def test_a_flipped_bit_in_the_newest_checkpoint_leads_to_the_one_before(two, tmp_path, caplog):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  newest = tmp_path / 'checkpoints' / '2'
  largest = max(newest.glob('params/**/d/*'), key=lambda p: p.stat().st_size)
  flip(largest)
  with pytest.raises(store.StoreError, match=r'damaged.*other steps'):
    reading.read(reading.find(tmp_path))
  back, meta = checkpoints.Checkpoints(tmp_path).restore(runs.abstract(), runs.CONFIG)
  assert meta['step'] == 1 and largest.name in caplog.text
  runs.assert_equal(runs.trained(1), back)
  assert (tmp_path / 'checkpoints' / 'broken-2').is_dir()


def test_the_list_of_checksums_is_that_of_sha256sum(two):
  done = subprocess.run(
    ['sha256sum', '-c', '--quiet', checksums.NAME], cwd=two / 'checkpoints' / '2'
  )
  assert done.returncode == 0


def test_a_checkpoint_without_checksums_still_loads(two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  (tmp_path / 'checkpoints' / '2' / checksums.NAME).unlink()
  _, meta = checkpoints.Checkpoints(tmp_path).restore(runs.abstract(), runs.CONFIG)
  assert meta['step'] == 2


def test_an_interrupted_deletion_is_set_aside(two, tmp_path, caplog):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  shutil.rmtree(tmp_path / 'checkpoints' / '1' / 'opt')
  _, meta = checkpoints.Checkpoints(tmp_path).restore(runs.abstract(), runs.CONFIG)
  assert meta['step'] == 2 and checkpoints.list_steps(tmp_path / 'checkpoints') == [2]
  assert 'deletion was interrupted' in caplog.text


def test_the_remains_of_an_interrupted_save_go(two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  folder = tmp_path / 'checkpoints'
  shutil.copytree(folder / '2', folder / '3.orbax-checkpoint-tmp')
  store = checkpoints.Checkpoints(tmp_path)
  back, meta = store.restore(runs.abstract(), runs.CONFIG)
  store.save(runs.trained(3, back), runs.CONFIG, {})
  store.close()
  assert meta['step'] == 2 and checkpoints.list_steps(folder) == [1, 2, 3]
  assert not list(folder.glob('*tmp*'))


def mounted(path, size, read_only=False):
  """A file system of `size` bytes at the path, or a reason to skip."""
  done = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(path)], capture_output=True
  )
  if done.returncode:
    pytest.skip('mounting a small disk needs root')


@pytest.fixture
def small_disk(tmp_path):
  mounted(tmp_path, 1_000_000)
  yield tmp_path
  subprocess.run(['mount', '-o', 'remount,rw', str(tmp_path)])
  subprocess.run(['umount', '-l', str(tmp_path)])


def test_a_full_disk_ends_in_a_sentence_and_keeps_the_last_checkpoint(small_disk):
  store = checkpoints.Checkpoints(small_disk, keep=1)
  store.save(runs.trained(1), runs.CONFIG, {})
  store.wait()
  want = files_of(small_disk / 'checkpoints' / '1')
  with pytest.raises(OSError), open(small_disk / 'filler', 'wb', buffering=0) as filler:
    while True:
      filler.write(b'0' * 4096)
  with pytest.raises(
    checkpoints.CheckpointError, match=r'step 2 cannot be .*No space.* is step 1,'
  ):
    store.save(runs.trained(2), runs.CONFIG, {})
    store.wait()
  store.close()
  assert files_of(small_disk / 'checkpoints' / '1') == want
  with pytest.raises(faults.StorageError, match='nothing can be written'):
    store.check_writable()
  (small_disk / 'filler').unlink()
  again = checkpoints.Checkpoints(small_disk, keep=1)
  back, meta = again.restore(runs.abstract(), runs.CONFIG)
  assert meta['step'] == 1
  again.save(runs.trained(2, back), runs.CONFIG, {})
  again.close()
  assert checkpoints.list_steps(small_disk / 'checkpoints') == [2]
  assert not list((small_disk / 'checkpoints').glob('*tmp*'))


def test_a_folder_that_becomes_read_only_ends_in_a_sentence(small_disk):
  store = checkpoints.Checkpoints(small_disk)
  store.save(runs.trained(1), runs.CONFIG, {})
  store.wait()
  subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
  with pytest.raises(checkpoints.CheckpointError, match=r'step 2 .*Read-only.* is step 1,'):
    store.save(runs.trained(2), runs.CONFIG, {})
    store.wait()
  store.close()
  with pytest.raises(faults.StorageError, match='Read-only'):
    store.check_writable()
  _, meta = checkpoints.Checkpoints(small_disk).restore(runs.abstract(), runs.CONFIG)
  assert meta['step'] == 1


def lines(folder, name='metrics.jsonl'):
  return [json.loads(line)['step'] for line in (folder / name).read_text().splitlines()]


def test_lines_past_the_checkpoint_and_a_torn_one_are_forgotten(tmp_path):
  writer = writers.Writer(tmp_path)
  for s in (1, 2, 3, 4):
    writer.scalars(s, {'loss': s})
  writer.flush()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 5, "lo')  # the process was killed here; the event file is not closed
  writer = writers.Writer(tmp_path, start=2)
  writer.scalars(3, {'loss': 30.0})
  writer.rewind(1)
  writer.scalars(2, {'loss': 20.0})
  writer.close()
  assert lines(tmp_path) == [1, 2]
  assert lines(tmp_path, 'metrics.dropped.jsonl') == [3, 4, 2, 3]


def events(folder):
  """[(step, value or 'forget')] of all event files, in the order of their making."""
  from tensorboardX.proto import event_pb2

  found = []
  for path in sorted((folder / 'tb').iterdir(), key=lambda p: p.stat().st_mtime_ns):
    data = path.read_bytes()
    while len(data) >= 12:
      size = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      if event.HasField('session_log'):
        found.append((event.step, 'forget'))
      found += [(event.step, v.simple_value) for v in event.summary.value]
  return found


def test_tensorboard_is_told_what_to_forget(tmp_path):
  writer = writers.Writer(tmp_path)
  writer.scalars(1, {'loss': 1.0})
  writer.scalars(2, {'loss': 2.0})
  writer.image(2, 'samples', np.zeros((4, 4, 3), np.uint8))
  writer.rewind(1)
  writer.scalars(2, {'loss': 2.5})
  writer.flush()  # and killed
  assert [e for e in events(tmp_path) if e[1]] == [(1, 1.0), (2, 2.0), (2, 'forget'), (2, 2.5)]


def test_the_state_given_to_a_save_may_be_overwritten_at_once(tmp_path):
  """What is on disk is the state of its step although the next step donates its buffers."""
  store, state = checkpoints.Checkpoints(tmp_path), runs.trained(1)
  store.save(state, runs.CONFIG, {})
  state = runs.trained(2, state)
  store.close()
  back, _ = checkpoints.Checkpoints(tmp_path).restore(runs.abstract(), runs.CONFIG)
  jax.tree.map(np.testing.assert_array_equal, runs.trained(1), back)
