"""Workdirs as training leaves them, in parts."""

import io
import json
import os

import numpy as np
from PIL import Image

from jaxinpaint.runtime import locks
from jaxinpaint.training.goodput import Goodput


def png(value=7, size=8) -> bytes:
  out = io.BytesIO()
  Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(out, 'PNG')
  return out.getvalue()


def metrics(folder, steps, **values):
  with open(folder / 'metrics.jsonl', 'a') as file:
    for step in steps:
      line = {'step': step, 'time': 1000.0 + step, 'generator/total': 1 / step, **values}
      file.write(json.dumps(line) + '\n')


def sample(folder, step, data=None):
  (folder / 'samples').mkdir(exist_ok=True)
  (folder / 'samples' / f'{step:07d}.png').write_bytes(data or png())


def config(folder, **training):
  text = {'system': 'mesff', 'training': {'steps': 20} | training, 'evaluation': {}}
  (folder / 'config.json').write_text(json.dumps(text))


_STARTS = {}  # {folder: (its last start, the clock of that)}


def begin(folder, step=0, at=1000.0, steps=20) -> Goodput:
  """What training notes of a start, at this time."""
  clock = [at]
  goodput = Goodput(folder, step, '1 x toy', clock=lambda: clock[0], steps=steps)
  _STARTS[folder] = goodput, clock
  return goodput


def end(folder, how, why='', step=3, at=2000.0):
  """What training notes of the end of the last start."""
  goodput, clock = _STARTS[folder]
  clock[0] = at
  goodput.ended(step, how, why)


def lock(folder, what='a run'):
  """Holds the lock as a run does."""
  return locks.hold(folder / '.lock', what)


def lock_since(folder, at):
  """As if the lock had been taken then."""
  os.utime(folder / '.lock', (at, at))


def workdir(folder, rows=(1, 2, 3)):
  folder.mkdir(parents=True, exist_ok=True)
  config(folder)
  begin(folder)
  metrics(folder, rows)
  sample(folder, 0)
  return folder
