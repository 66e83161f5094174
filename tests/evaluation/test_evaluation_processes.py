"""Kills, and several processes: evaluations in processes of their own, on narrow networks."""

import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
GRIDS = ('grid_10-20.png', 'grid_20-40.png')
REPORT = ('metrics.json', 'per_image.csv', 'report.md', 'report.html', 'pictures.npz', *GRIDS)


def start(output, *arguments, devices=1):
  flags = f'--xla_force_host_platform_device_count={devices}'
  env = os.environ | {'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)}
  command = [sys.executable, str(HERE / 'engine_driver.py'), str(output), *map(str, arguments)]
  return subprocess.Popen(
    command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
  )


def finish(*processes):
  texts = [p.communicate(timeout=300)[0] for p in processes]
  assert [p.returncode for p in processes] == [0] * len(processes), '\n'.join(texts)
  return texts


def together(output, *, processes=2, devices=2, die_after=-1):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  options = ('--coordinator', address, '--processes', processes, '--die_after', die_after)
  return [start(output, *options, '--process', k, devices=devices) for k in range(processes)]


def seen(output):
  """The images that were completed, of all processes, once for each bin."""
  lines = [
    x for p in output.parent.glob(f'{output.name}.seen.*') for x in p.read_text().split('\n')
  ]
  return sorted(i for line in lines if line for i in json.loads(line))


def numbers(output):
  with open(output / 'per_image.csv') as file:
    rows = list(csv.DictReader(file))
  names = [(r['predictor'], r['bin'], r['index'], r['file']) for r in rows]
  values = [[float(v) for v in list(r.values())[5:]] for r in rows]
  return names, np.array(values)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_in_the_same_files(tmp_path):
  """Also with another number of processes than before."""
  straight, killed, moved = (tmp_path / n for n in ('straight', 'killed', 'moved'))
  finish(start(straight))
  everything = sorted([*range(10)] * 2)
  assert seen(straight) == everything
  for output in (killed, moved):
    process = start(output, '--die_after', 5)  # in the second bin of the third batch
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert not output.exists() and (tmp_path / f'.{output.name}.partial').is_dir()
    before = seen(output)
    assert before == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]
  (text,) = finish(start(killed))
  assert 'Resuming: 4 of 10 images' in text
  # The batch that was torn is measured again, the two before it are not.
  assert seen(killed) == sorted([*everything, 4, 5])
  for name in REPORT:
    assert (killed / name).read_bytes() == (straight / name).read_bytes(), name

  finish(*together(moved, devices=1))
  assert seen(moved) == sorted([*everything, 4, 5])
  for name in ('per_image.csv', *GRIDS):
    assert (moved / name).read_bytes() == (straight / name).read_bytes(), name
  assert not list(tmp_path.glob('.*.partial'))


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  finish(start(one))
  finish(*together(two))
  assert {p.name for p in two.iterdir()} == set(REPORT)
  names, values = numbers(two)
  expected_names, expected = numbers(one)
  assert names == expected_names
  np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
  assert len(seen(two)) == 20, 'each image on one process only'
  assert all((two.parent / f'two.seen.{k}').exists() for k in (0, 1))


@pytest.mark.slow
def test_an_error_on_one_process_ends_all(tmp_path):
  script = (
    'import sys; from jaxinpaint.runtime import distributed\n'
    'distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))\n'
    'import numpy as np\n'
    'from jaxinpaint.evaluation.evaluate import evaluate\n'
    'from jaxinpaint.evaluation.spec import EvaluationSpec, MaskedImages\n'
    'from jaxinpaint.masks import sets\n'
    'from jaxinpaint.metrics import protocols\n'
    'images = [(np.full((24, 24, 3), k, np.uint8), str(k)) for k in range(4)]\n'
    'protocol = protocols.get("seed000")\n'
    'masks = sets.make("strokes", protocol.bins[1:2], 24, 24)\n'
    'def bad(image, mask, ids):\n'
    '  return np.where(mask * (ids[:, None, None, None] == 3) > 0, np.nan, image)\n'
    'spec = EvaluationSpec({"bad": bad}, MaskedImages(images, masks), protocol, batch_size=1)\n'
    'evaluate(spec, share=True)\n'
  )
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  processes = [
    subprocess.Popen([sys.executable, '-c', script, address, str(k)], stderr=subprocess.PIPE,
                     text=True, cwd=ROOT)
    for k in (0, 1)
  ]  # fmt: skip
  texts = [p.communicate(timeout=120)[1] for p in processes]
  assert all(p.returncode == 1 for p in processes)
  sentence = "'bad' returned NaN or infinity for the images [3]"
  assert f'process 1: {sentence}' in texts[0] and sentence in texts[1]
