"""The notebooks of examples/ run from their first cell to their last, in miniature."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np

from jaxinpaint import systems
from jaxinpaint.weights import store

NOTEBOOK = pathlib.Path(__file__).parent.parent / 'examples' / 'repair_and_finetune.ipynb'

# In the place of the cell that is tagged 'parameters'.
MINIATURE = """
WEIGHTS, WORKDIR, PHOTOS = 'small.safetensors', 'run', 'sample'
STEPS, EVERY, SIZE, BATCH, COUNT = 2, 1, 40, 2, 3
"""


def write_small_weights(path):
  """A MESFF without what compiles slowly; it paints almost its smooth fill."""
  config = systems.default_config('mesff')
  config.model.update(dict(width=4, use_mesff=False, bottleneck='none', fill='smooth'))
  config.loss.update(dict(l1_hole=1.0, adversarial=0.0, perceptual=0.0, style=0.0))
  rng = np.random.default_rng(0)
  draw = lambda x: rng.uniform(-0.01, 0.01, x.shape).astype(x.dtype)
  variables = jax.tree.map(draw, systems.inference(config).shapes())
  store.save(path, 'mesff', config, variables.params, variables.stats)


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path):
  cells = [c for c in json.loads(NOTEBOOK.read_text())['cells'] if c['cell_type'] == 'code']
  assert not any(c['outputs'] or c['execution_count'] for c in cells), 'clear the outputs'
  sources = [
    MINIATURE if 'parameters' in c['metadata'].get('tags', ()) else ''.join(c['source'])
    for c in cells
  ]
  assert sources.count(MINIATURE) == 1
  write_small_weights(tmp_path / 'small.safetensors')
  (tmp_path / 'cells.py').write_text('\n\n'.join(sources))
  root = str(NOTEBOOK.parent.parent)
  done = subprocess.run(
    [sys.executable, 'cells.py'],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': root, 'XLA_FLAGS': '--xla_backend_optimization_level=0'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'after against before, paired by image' in done.stdout
  assert 'mean error in the hole: before' in done.stdout
  assert list((tmp_path / 'run' / 'evaluation').glob('*/report.html'))
