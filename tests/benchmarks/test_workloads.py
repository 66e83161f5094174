"""The configs that benchmarks make of the systems can be trained, at the size that is asked for."""

import pytest

from benchmarks import workloads
from jaxinpaint import systems
from jaxinpaint.training import optimizers


def config_of(system, **others):
  return workloads.config_of(system, **(dict(dtype='bfloat16', batch=2, size=256) | others))


@pytest.mark.parametrize('system', systems.list_systems())
def test_every_systems_config_has_its_size_and_all_optimizers(system):
  config = config_of(system)
  # The context encoder's networks scale every image to one size.
  assert config.data.size == (128 if system == 'context_encoder' else 256)
  recipe = systems.make_recipe(config)
  assert set(optimizers.make_optimizers(config.optimizers, recipe.optimizers)) == set(
    recipe.optimizers
  )
  assert (
    config.model.get('global_size', 256) == config.data.size or 'global_size' not in config.model
  )
  assert config.model.get('image_size', config.data.size) == config.data.size


def test_local_windows_keep_their_share_of_the_image():
  assert config_of('glcic').model.local_size == 128
  assert config_of('deepfillv1', size=512).model.local_size == 256


@pytest.mark.parametrize('system', ['comodgan', 'mat'])
def test_networks_of_larger_pictures_are_built_for_the_size_that_is_asked_for(system):
  assert systems.default_config(system).model.size == 512
  assert config_of(system).model.size == 256


@pytest.mark.parametrize('system', systems.list_systems())
def test_the_steps_plan_is_of_the_last_phase_and_runs_all_its_updates(system):
  recipe = systems.make_recipe(config_of(system, size=0, quick=True))
  plan = workloads.last_plan(recipe)
  assert plan.phase == len(recipe.phases) - 1
  assert plan.updates == tuple(u.name for u in recipe.phases[-1].updates)
