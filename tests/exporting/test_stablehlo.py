"""A program that jax alone loads and runs, for each platform in its own form."""

import json
import pathlib
import subprocess
import sys
import zipfile

import exporting_cases as cases
import jax
import numpy as np
import pytest

import jaxinpaint
from jaxinpaint import systems
from jaxinpaint.exporting import function, stablehlo
from jaxinpaint.predictor import Predictor
from jaxinpaint.weights import store

DOCUMENT = pathlib.Path(__file__).parents[2] / 'docs' / 'export.md'
# What docs/export.md shows, where this library and flax cannot be imported.
LOADER = """
import sys
sys.modules.update({'jaxinpaint': None, 'flax': None})
import numpy as np
PROGRAM
for case in sys.argv[2:]:
  image, mask = (np.load(f'{case}.{name}.npy') for name in ('image', 'mask'))
  np.save(f'{case}.filled.npy', fill(image, mask))
print(card['licence'])
"""


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A small MISF with random weights, as a file."""
  config = systems.default_config('misf')
  config.model.update(dict(width=4, blocks=1))
  params, stats = jax.tree.map(
    lambda x: np.asarray(cases.numbers(x.shape)), systems.inference(config).shapes()
  )
  path = tmp_path_factory.mktemp('weights') / 'misf.safetensors'
  return store.save(path, 'misf', config, params, stats, about={'licence': 'CC0'})


def test_jax_alone_runs_what_the_command_has_written(weights, tmp_path):
  from jaxinpaint.cli import export

  file = tmp_path / 'misf.stablehlo'
  arguments = ('--weights', weights, '--to', 'stablehlo', '--output', file)
  assert export.main([str(a) for a in arguments]) == 0
  inpainter, wanted = jaxinpaint.load(weights, exact_sizes=True), {}
  for count, height, width in ((1, 32, 48), (3, 40, 32)):
    case = str(tmp_path / f'{count}_{height}_{width}')
    image, mask = cases.pictures(count, height, width)
    np.save(f'{case}.image.npy', image), np.save(f'{case}.mask.npy', mask)
    wanted[case] = np.stack(inpainter(list(image), list(mask)))
    assert (np.abs(wanted[case] - image) > 0.1).any()
  blocks = [b for b in DOCUMENT.read_text().split('```') if b.startswith('python')]
  [shown] = [b for b in blocks if 'deserialize' in b]
  program = shown.removeprefix('python').replace("'misf.stablehlo'", 'sys.argv[1]')
  code = LOADER.replace('PROGRAM', program.split('\nimage')[0])
  done = subprocess.run(
    [sys.executable, '-c', code, str(file), *wanted], capture_output=True, text=True, cwd=tmp_path
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == 'CC0'
  for case, want in wanted.items():
    np.testing.assert_allclose(np.load(f'{case}.filled.npy'), want, atol=1e-5)


def test_a_file_says_what_it_takes(tmp_path):
  path = tmp_path / 'new' / 'toy.stablehlo'
  written = stablehlo.write(function.build(cases.trained()), path, batch=2)
  with zipfile.ZipFile(path) as file:
    card = json.loads(file.read('card.json'))
    program = jax.export.deserialize(bytearray(file.read('program')))
  assert card == json.loads(json.dumps(written)) and card['system'] == 'toy'
  assert card['shape'] == ['2', '2*h', '2*w', '3'] and card['platforms'] == ['cpu', 'cuda', 'tpu']
  for wrong in (cases.pictures(2, 9, 8), cases.pictures(2, 4, 8), cases.pictures(1, 8, 8)):
    with pytest.raises(ValueError):
      program.call(*wrong)
  assert program.call(*cases.pictures(2, 6, 8)).shape == (2, 6, 8, 3)


def test_each_platform_has_its_form(monkeypatch):
  exportable = function.build(cases.trained())
  for backend in ('cpu', 'gpu'):  # of the machine that exports
    monkeypatch.setattr(jax, 'default_backend', lambda backend=backend: backend)
    texts = {
      platform: stablehlo.export(exportable, platforms=[platform]).mlir_module()
      for platform in ('cpu', 'cuda', 'tpu')
    }
    dilated = {platform: 'lhs_dilate = [2, 2]' in text for platform, text in texts.items()}
    assert dilated == {'cpu': False, 'cuda': True, 'tpu': True}, backend


def test_a_system_that_draws_numbers_draws_the_predictors(tmp_path):
  trained = cases.trained(cases.noisy, samples=True)
  image, mask = cases.pictures(3, 8, 10)
  got = stablehlo.export(function.build(trained, seed=4)).call(image, mask)
  predictor = Predictor(trained.inference, trained.variables, seed=4)
  np.testing.assert_allclose(
    got, predictor(np.where(mask, 0, image), mask, np.arange(3)), atol=1e-6
  )


@pytest.mark.parametrize(
  ('output', 'options', 'given', 'why'),
  [
    (cases.by_size, {}, {}, r'for any size, .* --size 384x512 \(multiples of 2\)$'),
    (cases.by_count, {}, {'size': (8, 8)}, r'any number of images, .* --batch 1$'),
    (cases.by_count, {'side': 8}, {}, r'any number of images, .* --batch 1$'),
    (cases.output, {}, {'size': (8, 9)}, r'multiples of 2 .* not 8 x 9: export 8 x 10'),
  ],
)
def test_what_cannot_be_exported_so_is_a_sentence(output, options, given, why):
  with pytest.raises(function.ExportError, match=why):
    stablehlo.export(function.build(cases.trained(output, **options)), **given)


def test_a_system_that_chooses_by_numbers_is_exported_for_them():
  for output, given in ((cases.by_size, {'size': (8, 8)}), (cases.by_count, {'batch': 1})):
    exportable = function.build(cases.trained(output))
    image, mask = cases.pictures(1, 8, 8)
    got = stablehlo.export(exportable, **given).call(image, mask)
    np.testing.assert_allclose(got, np.where(mask, 1, image), atol=1e-6)


def test_a_mistake_of_a_system_is_no_sentence_about_sizes():
  def wrong(variables, constants, image, mask, rng):
    return image + None

  exportable = function.build(cases.trained(wrong))
  with pytest.raises(TypeError):
    stablehlo.export(exportable, size=(8, 8), batch=1)
