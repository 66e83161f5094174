"""A run goes on with other devices and processes: the same batches, and the same numbers."""

import collections
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import topologies
from jax.experimental import multihost_utils
from topologies import BATCH, STEPS

from jaxinpaint.data import pipeline, prepare
from jaxinpaint.runtime import faults
from jaxinpaint.training import checkpoints

HALF = STEPS // 2
# Other devices sum in another order; Adam makes a rounding of a gradient near zero one of a step's
# share. A batch in another order or a key of another step differs by 1e-3 or more.
TOLERANCE = 2e-6


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  """Images, and what an uninterrupted run on eight devices has seen and become."""
  place = tmp_path_factory.mktemp('topologies')
  images = topologies.folder(place / 'images')
  topologies.train(place / 'run', images, STEPS, dict(data=8))
  seen, arrays = topologies.stored(place / 'run', STEPS)
  # An epoch has 11 images: it ends within batches, and no image comes twice before.
  ids = seen['id'].ravel()
  assert sorted(ids[:11]) == list(range(11)) == sorted(ids[11:22])
  assert len(set(seen['mask'].ravel())) > BATCH
  return images, seen, arrays


def check(straight, workdir, exact=False):
  _, seen, arrays = straight
  other_seen, other = topologies.stored(workdir, STEPS)
  for name, rows in seen.items():
    np.testing.assert_array_equal(other_seen[name], rows, err_msg=name)
  assert other.keys() == arrays.keys()
  for path, x in arrays.items():
    if exact:
      np.testing.assert_array_equal(other[path], x, err_msg=path)
    else:
      np.testing.assert_allclose(other[path], x, rtol=0, atol=TOLERANCE, err_msg=path)


EIGHT, FOUR, ONE = dict(data=8), dict(data=4), dict(data=1)
FSDP = dict(data=4, fsdp=2)


def go_on(straight, workdir, meshes):
  """Two steps on the first mesh, and so on."""
  for i, mesh in enumerate(meshes):
    state = topologies.train(workdir, straight[0], 2 * i + 2, mesh)
    weights = state.params['critic']['w'].sharding
    assert weights.mesh.size == np.prod(list(mesh.values()))
    assert weights.is_fully_replicated == ('fsdp' not in mesh)
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
  'meshes',
  [
    (EIGHT, ONE, FOUR),
    (ONE, EIGHT, FSDP),
    (FSDP, ONE, FSDP),
    (dict(data=2, spatial=4), FSDP, FOUR),
  ],
  ids=str,
)
def test_a_run_goes_on_with_any_other_mesh(straight, tmp_path, meshes):
  check(straight, go_on(straight, tmp_path / 'run', meshes))


def test_on_the_same_mesh_it_goes_on_to_the_bit_with_worker_processes_too(straight, tmp_path):
  topologies.train(tmp_path / 'run', straight[0], HALF, EIGHT, dict(workers=2))
  topologies.train(tmp_path / 'run', straight[0], STEPS, EIGHT)
  check(straight, tmp_path / 'run', exact=True)


def start(workdir, images, steps, devices, mesh, processes=1, **data):
  """Runs topologies.py in processes of so many devices each; exits when all are done."""
  flags = f'--xla_force_host_platform_device_count={devices}'
  environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  root = pathlib.Path(__file__).parent.parent.parent
  environment['PYTHONPATH'] = os.pathsep.join([str(root), str(pathlib.Path(__file__).parent)])
  command = [sys.executable, str(pathlib.Path(__file__).parent / 'topologies.py')]
  command += [str(workdir), str(images), str(steps), json.dumps(dict(mesh=mesh, data=data))]
  cluster = [[]]
  if processes > 1:
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{free.getsockname()[1]}'
    cluster = [[address, str(processes), str(i)] for i in range(processes)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  running = [subprocess.Popen([*command, *c], env=environment, **pipes) for c in cluster]
  for process in running:
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text[-3000:]


def test_a_run_of_eight_devices_goes_on_with_four_and_in_a_process_of_one(straight, tmp_path):
  """Split states become whole ones on the way."""
  go_on(straight, tmp_path / 'run', [FSDP, FOUR])
  start(tmp_path / 'run', straight[0], STEPS, 1, dict(data=-1))
  devices = json.loads((tmp_path / 'run' / 'environment.json').read_text())['devices']
  assert devices.startswith('1 x')
  check(straight, tmp_path / 'run')


@pytest.mark.slow
def test_a_run_of_eight_devices_goes_on_in_a_process_of_four_and_back(straight, tmp_path):
  go_on(straight, tmp_path / 'run', [EIGHT])
  start(tmp_path / 'run', straight[0], 4, 4, dict(data=2, fsdp=-1), workers=2)
  topologies.train(tmp_path / 'run', straight[0], STEPS, EIGHT)
  check(straight, tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize(
  'mesh',
  [dict(data=4), dict(data=2, fsdp=2), dict(data=1, fsdp=4), dict(data=2, spatial=2)],
  ids=str,
)
def test_two_processes_become_one_and_one_becomes_two(straight, tmp_path, mesh):
  images = straight[0]
  start(tmp_path / 'a', images, HALF, 2, mesh, processes=2)
  topologies.train(tmp_path / 'a', images, STEPS, EIGHT)
  check(straight, tmp_path / 'a')
  topologies.train(tmp_path / 'b', images, HALF, EIGHT)
  start(tmp_path / 'b', images, STEPS, 2, mesh, processes=2, workers=1)
  check(straight, tmp_path / 'b')


@pytest.mark.slow
def test_a_process_reads_the_images_of_its_devices_only(tmp_path):
  images = topologies.folder(tmp_path / 'images', 256)  # an epoch is longer than the read-ahead
  start(tmp_path / 'run', images, 3, 2, dict(data=4), processes=2)
  seen, _ = topologies.stored(tmp_path / 'run', 3)
  reads = [json.loads((tmp_path / f'run.reads.{i}').read_text()) for i in range(2)]
  assert not set(reads[0]) & set(reads[1])
  for i, rows in enumerate((slice(0, 4), slice(4, 8))):
    assert set(seen['id'][:, rows].ravel()) <= set(reads[i])
    # Once each, and once more where the data was looked at before the run.
    assert collections.Counter(reads[i]).most_common(2)[1][1] == 1


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """A set of two array_record shards."""
  import tensorflow_datasets as tfds

  place = tmp_path_factory.mktemp('records')
  paths = sorted(topologies.folder(place / 'images', 40).iterdir())

  class ManyPhotos(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      image = tfds.features.Image(encoding_format='png')
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict({'image': image})
      )

    def _split_generators(self, dl_manager):
      return {'train': ((i, {'image': str(path)}) for i, path in enumerate(paths))}

    def _generate_examples(self):
      raise NotImplementedError

  prepare.prepare('many_photos', str(place / 'tfds'))
  return place / 'tfds'


@pytest.mark.parametrize('kind', ['folder', 'tfds'])
def test_a_share_of_the_rows_reads_its_images_only(straight, records, tmp_path, monkeypatch, kind):
  if kind == 'tfds':
    name, data_dir = 'tfds:many_photos', str(records)
  else:
    name, data_dir = f'folder:{topologies.folder(tmp_path / "images", 40)}', ''
  settings = topologies.config('', 1, {}).data
  settings.update(dict(source=name, data_dir=data_dir, crop='center', flip=False))
  source = pipeline._source(name, 'train', data_dir)
  reads = []
  read = type(source).__getitem__
  monkeypatch.setattr(
    type(source), '__getitem__', lambda self, i: reads.append(int(i)) or read(self, i)
  )
  whole = pipeline.Samples(settings, 3)
  want = [whole[i] for i in range(4 * BATCH)]
  everything, reads[:] = list(reads), []
  assert sorted(everything) == sorted(set(everything))
  shares = []
  for rows in (range(0, 4), range(4, 8)):
    share = pipeline.Samples(settings, 3, rows=rows)
    assert share._order(0).tolist() == whole._order(0).tolist()
    for batch in range(4):
      for position, row in enumerate(rows):
        got, expected = share[batch * 4 + position], want[batch * BATCH + row]
        for key in expected:
          np.testing.assert_array_equal(got[key], expected[key], err_msg=key)
    shares.append(list(reads))
    reads.clear()
  assert not set(shares[0]) & set(shares[1])
  assert sorted(shares[0] + shares[1]) == sorted(everything)


def test_a_signal_is_heard_soon_though_the_first_steps_only_seem_fast(monkeypatch):
  clock, asked = [0.0], []

  def gather(mine):
    asked.append(clock[0])
    return np.stack([mine, mine])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost_utils, 'process_allgather', gather)
  monkeypatch.setattr(faults.time, 'monotonic', lambda: clock[0])
  with faults.StopSignals() as stop:
    for done in range(40):
      assert not stop.reached(done)
      clock[0] += 0.002 if done in (2, 3, 4, 5) else 1.5  # seconds that the host takes for a step
  assert len(asked) < 40 and np.diff([*asked, clock[0]]).max() < 10


def test_a_batch_that_the_new_devices_cannot_split_is_refused_and_nothing_changes(
  straight, tmp_path
):
  topologies.train(tmp_path / 'run', straight[0], 1, EIGHT)
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  with pytest.raises(faults.ConfigurationError, match=r'batch_size 8 .* must be a multiple of 3'):
    topologies.train(tmp_path / 'run', straight[0], 2, dict(data=3))
  assert before == {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  assert checkpoints.list_steps(tmp_path / 'run' / 'checkpoints') == [1]
