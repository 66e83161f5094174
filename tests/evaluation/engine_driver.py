"""Evaluates a narrow MISF, a toy that samples and a fill, in a process of its own.

engine_driver.py OUTPUT [--die_after N] [--coordinator HOST:PORT --process I --processes N]
"""

import argparse
import json
import os
import signal

import jax
import numpy as np

from jaxinpaint import systems
from jaxinpaint.cli import command_line
from jaxinpaint.data import pipeline
from jaxinpaint.evaluation import classical, run
from jaxinpaint.evaluation.spec import EvaluationSpec, MaskedImages
from jaxinpaint.masks import sets
from jaxinpaint.metrics import protocols
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Inference, Variables
from jaxinpaint.runtime import distributed

SIZE = 24
BINS = ['10-20', '20-40']
IMAGES = 10


def misf():
  config = systems.default_config('misf')
  config.model.update(dict(width=4, blocks=1))
  inference = systems.inference(config)
  batch = {
    'image': np.zeros((1, SIZE, SIZE, 3), np.float32),
    'mask': np.zeros((1, SIZE, SIZE, 1), np.float32),
    'id': np.zeros(1, np.int32),
  }
  return Predictor(inference, inference.init(jax.random.key(0), batch))


def sampling():
  def output(variables, constants, image, mask, rng):
    return jax.random.uniform(rng, image.shape)

  inference = Inference(('generator',), None, output, samples=True)
  return Predictor(inference, Variables({'generator': {}}, {}), seed=3)


class Counting:
  """A fill that says which images it saw, and may end the process."""

  kind = 'fill'

  def __init__(self, fill, log, die_after):
    self._fill, self._log, self._left = fill, log, die_after

  def __call__(self, image, mask, ids):
    if self._left == 0:
      os.kill(os.getpid(), signal.SIGKILL)
    self._left -= 1
    with open(self._log, 'a') as log:
      log.write(json.dumps(sorted(set(ids.tolist()))) + '\n')
    return self._fill(image, mask, ids)

  def fingerprint(self):
    return 'counting'


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('output')
  parser.add_argument('--die_after', type=int, default=-1)
  parser.add_argument('--coordinator')
  parser.add_argument('--process', type=int, default=0)
  parser.add_argument('--processes', type=int, default=1)
  given = parser.parse_args()
  command_line.setup_logging()
  if given.coordinator:
    distributed.initialize(given.coordinator, given.processes, given.process)
  log = f'{given.output}.seen.{given.process}'
  rows = {
    'misf': misf(),
    'draws': sampling(),
    'Telea': classical.telea,
    'mine': Counting(classical.mean_fill, log, given.die_after),
  }
  on = MaskedImages(
    pipeline.evaluation_set('sample', 'test', size=SIZE, count=IMAGES),
    sets.make('strokes', protocols.parse_bins(BINS), SIZE, SIZE),
    count=IMAGES,
    dataset='sample/test',
    masks_name='strokes',
  )
  spec = EvaluationSpec(rows, on, protocols.get('seed000'), batch_size=2)
  run.evaluate_and_report(spec, given.output)


if __name__ == '__main__':
  main()
