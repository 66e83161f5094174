"""Every system has its files, a test, and configs that build and plan."""

import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from jaxinpaint import migrations, systems
from jaxinpaint.data import inputs
from jaxinpaint.evaluation.spec import ImagesSpec
from jaxinpaint.metrics import protocols
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers
from jaxinpaint.weights import mapping

ROOT = pathlib.Path(__file__).parent.parent.parent
# Experiments; a study is of several systems.
CONFIGS = sorted(
  p
  for p in (ROOT / 'configs').glob('*.py')
  if not p.name.startswith('_') and not p.stem.endswith('_study')
)


def get_config(path, variant=''):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


@pytest.mark.parametrize('system', systems.list_systems())
def test_a_system_is_complete(system):
  folder = ROOT / 'jaxinpaint' / 'systems' / system
  for part in ('networks', 'recipe', 'published'):
    assert (folder / f'{part}.py').exists(), f'{system} lacks {part}.py'
    assert systems.module(system, part).__doc__, f'{system}/{part}.py lacks a docstring'
  published = systems.module(system, 'published')
  assert isinstance(published.FORMATS, dict) and isinstance(published.PAPER, mapping.Paper)
  assert list((ROOT / 'tests' / 'systems').glob(f'test_{system}_*.py')), f'{system} has no test'
  assert [p for p in CONFIGS if get_config(p).system == system], f'{system} has no config'


@pytest.mark.parametrize('system', systems.list_systems())
def test_a_system_runs_by_what_a_weights_file_keeps(system):
  config = systems.default_config(system)
  kept = ConfigDict({k: config[k] for k in ('system', 'dtype', 'model', 'loss')}).lock()
  today = migrations.migrate(kept, systems.default_config)
  sections = lambda c: ConfigDict({name: c[name] for name in kept}).to_dict()
  assert sections(today) == sections(config)
  ready = systems.inference(today)
  assert set(ready.shapes().params) == set(ready.networks)
  assert set(kept) == {'system', 'dtype', 'model', 'loss'}  # nothing is added to the caller's


def test_an_unknown_system_is_named_with_those_there_are():
  with pytest.raises(ValueError, match=r'unknown system .*mesff, migan, misf'):
    systems.default_config('resnet')


RECIPE = ('system', 'dtype', 'model', 'loss', 'phases')  # all that `systems.make_recipe` reads


@functools.cache  # 144 configs have 88 recipes and sizes: their networks are traced once
def check_networks(parts: FrozenConfigDict, size: int):
  """Traces the networks of a config with these parts; images have this side."""
  recipe = systems.make_recipe(ConfigDict(parts))
  batch = {
    'image': jax.ShapeDtypeStruct((1, size, size, 3), np.float32),
    'mask': jax.ShapeDtypeStruct((1, size, size, 1), np.float32),
  }
  variables = jax.eval_shape(recipe.init, jax.random.key(0), batch)
  assert set(variables.params) == set(recipe.networks)
  further = {
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in inputs.shapes(recipe.inference.inputs, (1, size, size)).items()
  }
  arguments = (variables, {}, batch['image'], batch['mask'], jax.random.key(0))
  inference = recipe.inference
  completed = jax.eval_shape(inference.predict, *arguments, **further)
  assert completed.shape == (1, size, size, 3) and completed.dtype == np.float32
  pictures = inference.pictures or (lambda *a, **k: {})
  for name, picture in jax.eval_shape(pictures, *arguments, **further).items():
    assert picture.shape in ((1, size, size, 1), (1, size, size, 3)), name


@pytest.mark.parametrize('variant', ['', 'quicktest'])
@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_a_config_builds_and_plans(path, variant):
  config = get_config(path, variant)
  config.init_from = ''  # a file, which is no part of a config
  config_lib.validate(config)
  recipe = systems.make_recipe(config)
  optimizers.make_optimizers(config.optimizers, recipe.optimizers)
  parts = FrozenConfigDict({name: config[name] for name in RECIPE if name in config})
  check_networks(parts, config.data.size)
  assert recipe.plan(0).phase == 0
  if recipe.steps is not None:
    assert config.training.steps == recipe.steps, 'config.training.steps is not the sum of phases'
  with pytest.raises(ValueError, match='unknown config variant'):
    get_config(path, 'quicktst')


# Whose paper a config follows is by whose protocol it is measured.
PROTOCOLS = {
  'seed000': ('mesff', 'jpgnet', 'places2_aotgan_256', 'celeba_aotgan', 'finetune', 'quickstart'),
  'seed001': ('seresnet_cx', 'celeba_glcic'),
  'seed003': ('lfr', 'celebahq_pconv', 'celebahq_rfr'),
  'seed004': ('deepfillv1',),
  'survey': (
    'celeba_glcic_tf',
    'context_encoder',
    'csa',
    'deepfillv2',
    'dfnet',
    'gmcnn',
    'pennet',
    'pix2pix',
    'places2_glcic_tf',
    'pluralistic',
    'shiftnet',
  ),
  'edgeconnect': ('edgeconnect', 'ctsdg', 'misf', 'places2_rfr'),
  'aotgan': ('aotgan',),
  'mat': ('_mat', 'places2_comodgan'),
  'lama': ('places2_lama',),
  'migan': ('migan',),
}
# Systems and configs measured at the size that their networks are made for, or trained at.
OWN_SIZES = {'context_encoder': 128, 'lama': 256, 'places2_migan_256': 256, 'ffhq_migan': 256}
OWN_COUNTS = {'ffhq_migan': 10_000}  # the protocol's second set of images


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_a_config_is_measured_by_its_papers_protocol(path):
  words = {word: p for p, words in PROTOCOLS.items() for word in words if word in path.stem}
  wanted = words[max(words, key=len)] if words else 'seed000'
  config = get_config(path)
  protocol = protocols.get(config.evaluation.protocol)
  assert protocol.id == wanted
  assert config.checkpoint.best in [m.name for m in protocol.host_metrics if m.better == 'higher']
  if wanted != 'seed000':  # other configs of ours have other counts
    count = OWN_COUNTS.get(path.stem, protocol.count)
    assert (config.evaluation.masks, config.evaluation.count) == (protocol.masks, count)
    sizes = [OWN_SIZES[name] for name in (path.stem, config.system) if name in OWN_SIZES]
    assert config.data.size == (sizes or [protocol.size])[0]
  on = ImagesSpec.of_config(get_config(path, 'quicktest')).load()  # its holes fit small images
  assert all(b.low < masks(0).mean() <= b.high for b, masks in on.masks.items() if not b.masks)
  assert len(on.masks) == len(protocol.bins)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_the_header_of_a_config_gives_its_command_and_its_result(path):
  text = path.read_text()
  assert f'jaxinpaint train --config {path.stem}' in text, 'the header gives the command'


@pytest.mark.parametrize(
  ('name', 'variants'),
  [
    ('celebahq_mat', '256, quicktest'),
    ('celebahq_lfr', 'structure, texture, quicktest'),
    ('box_mesff', 'fine, quicktest'),
    ('places2_mat', 'quicktest'),
  ],
)
def test_an_unknown_variant_lists_those_of_the_config(name, variants):
  with pytest.raises(ValueError, match=f"unknown config variant '255'; there are: {variants}$"):
    get_config(ROOT / 'configs' / f'{name}.py', '255')
