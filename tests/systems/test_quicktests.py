"""Every experiment in miniature, through the train loop: `pytest -m slow tests/systems`."""

import json

import numpy as np
import pytest
from test_completeness import CONFIGS, get_config

from jaxinpaint import systems
from jaxinpaint.evaluation.watch import Watch
from jaxinpaint.training import loop, preparation


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_a_quicktest_trains_every_phase(path, tmp_path):
  config = get_config(path, 'quicktest')
  config.training.log_every = 1
  recipe = systems.make_recipe(config)
  state = loop.train(config, tmp_path / 'run', watch=Watch)
  assert int(state.step) == preparation.total_steps(config, recipe)
  lines = [json.loads(s) for s in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  seen = {name for line in lines for name in line}
  updates = {u.name for p in recipe.phases for u in p.updates}
  assert updates <= {name.split('/')[0] for name in seen}, 'an update has never run'
  values = [v for line in lines for v in line.values() if isinstance(v, float)]
  assert np.isfinite(values).all()
  assert list((tmp_path / 'run' / 'samples').glob('*.png'))
