"""configs/finetune.py: any weights, a folder of photographs, a table of before and after.

A toy recipe takes the place of a system, so little has to compile.
"""

import json

import jax
import numpy as np
import pytest
import toy
from PIL import Image

from jaxinpaint import systems
from jaxinpaint.configs import _base, finetune
from jaxinpaint.evaluation.watch import Watch
from jaxinpaint.runtime import faults
from jaxinpaint.training import loop, optimizers
from jaxinpaint.weights import checkpoints, store

SYSTEM = 'mesff'  # whose config the toy has


@pytest.fixture
def weights(tmp_path, monkeypatch):
  """Weights of a toy that paints holes almost black."""
  monkeypatch.setattr(systems, 'make_recipe', lambda config: toy.recipe())
  config = systems.default_config(SYSTEM)
  config.model.width = 24
  config.loss.l1_hole = 3.0
  params = {'generator': {'w': np.zeros((4, 3), np.float32), 'b': np.full(3, -3, np.float32)}}
  stats = {'generator': {'batch_stats': {'mean': np.zeros(3, np.float32)}}}
  return store.save(tmp_path / 'toy', SYSTEM, config, params, stats)


@pytest.fixture
def photos(tmp_path, photographs):
  folder = tmp_path / 'photos'
  folder.mkdir()
  for k, image in enumerate(photographs):
    Image.fromarray(image).save(folder / f'{k}.png')
  return folder


def small(weights, photos):
  config = finetune.get_config(str(weights))
  config.data.update(dict(source=f'folder:{photos}', size=40, batch_size=2))
  config.data.eval_split = 'every 10th, 6 crops'
  config.training.mesh.data = 1
  config.training.update(
    dict(steps=3, evaluate_every=1, log_every=1, sample_every=0, ema_decay=0.0)
  )
  config.optimizers.generator.learning_rate = 0.5
  config.optimizers.generator.schedule = 'constant'
  config.optimizers.generator.schedule_args = {}
  config.evaluation.update(dict(count=6, quick_count=6))
  return config


def test_the_config_is_that_of_the_weights(weights, photos, tmp_path):
  config = finetune.get_config(str(weights))
  assert config.model.width == 24 and config.loss.l1_hole == 3.0
  assert config.init_from == str(weights) and set(config.optimizers) == {'generator', 'critic'}
  run = small(weights, photos)
  run.training.steps = 1
  loop.train(run, tmp_path / 'run', watch=Watch)
  config = finetune.get_config(f'{tmp_path}/run@1')
  assert config.model.width == 24 and config.init_from == f'{tmp_path}/run@1'


@pytest.mark.parametrize('system', systems.list_systems())
def test_every_system_can_be_fine_tuned(system):
  config = _base.fine_tuning(systems.default_config(system), 'weights', learning_rate=1e-5)
  recipe = systems.make_recipe(config)
  assert len(recipe.phases) == 1 and set(config.optimizers) == set(recipe.optimizers)
  optimizers.make_optimizers(config.optimizers, recipe.optimizers)


def test_it_ends_with_a_table_of_before_and_after(weights, photos, tmp_path, capsys):
  loop.train(small(weights, photos), tmp_path / 'run', watch=Watch)
  best = checkpoints.find(tmp_path / 'run').name
  report = json.loads((tmp_path / 'run' / 'evaluation' / best / 'metrics.json').read_text())
  names = [p['name'] for p in report['predictors']]
  assert names == ['before', 'after', 'mean fill', 'Telea', 'Navier-Stokes']
  assert report['baseline'] == 'before' and report['dataset']['count'] == 6
  gains = {
    c['bin']: c['difference']
    for c in report['comparisons']
    if (c['predictor'], c['metric']) == ('after', 'hole_psnr')
  }
  # Almost black holes become gray ones.
  assert len(gains) == 4 and all(g > 1 for g in gains.values())
  printed = capsys.readouterr().out
  assert 'after against before, paired by image: better in' in printed
  # 'before' is what the weights paint, whatever becomes of their file.
  start = checkpoints.read(checkpoints.find(tmp_path / 'run', 0)).params['generator']
  jax.tree.map(np.testing.assert_array_equal, start, dict(store.load(weights).params['generator']))


def test_a_damaged_photograph_is_left_out_unless_all_that_is_held_out_is_damaged(
  weights, photos, tmp_path
):
  (photos / '0.png').write_bytes(b'not a picture')
  config = small(weights, photos)
  with pytest.raises(faults.ConfigurationError, match='none of the 6 evaluation images can be'):
    loop.train(config, tmp_path / 'run', watch=Watch)
  # Elsewhere a file that is damaged is left out.
  (photos / '0.png').rename(photos / '3.png')
  loop.train(config, tmp_path / 'run', watch=Watch)
  assert checkpoints.list_steps(tmp_path / 'run' / 'checkpoints')[-1] == 3


def test_folders_that_cannot_be_used_are_named(weights, photos, tmp_path):
  config = small(weights, photos)
  for k in (1, 2):
    (photos / f'{k}.png').unlink()
  with pytest.raises(faults.ConfigurationError, match='has 1 image, which is held out'):
    loop.train(config, tmp_path / 'run', watch=Watch)
  (photos / '0.png').unlink()
  with pytest.raises(faults.ConfigurationError, match='photos'):
    loop.train(config, tmp_path / 'run', watch=Watch)
  assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_weights_of_another_network_are_named_with_the_way_out(weights, photos, tmp_path):
  config = small(weights, photos)
  params = {'generator': {'kernel': np.zeros((3, 3), np.float32)}}
  other = store.save(tmp_path / 'other', 'aotgan', systems.default_config('aotgan'), params)
  config.init_from = str(other)
  with pytest.raises(
    faults.ConfigurationError, match=r"of the system 'aotgan'; `--config finetune:"
  ):
    loop.train(config, tmp_path / 'run', watch=Watch)
  with pytest.raises(ValueError, match=r"unknown config variant 'box2': .* no weights at box2"):
    finetune.get_config('box2')
