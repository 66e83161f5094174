"""`jaxinpaint weights export` and `show`: a run becomes one file that says what it is."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import report_cases

from jaxinpaint import systems, trained
from jaxinpaint.cli import weights as cli
from jaxinpaint.report import files
from jaxinpaint.training import config as config_lib
from jaxinpaint.training.checkpoints import Checkpoints
from jaxinpaint.training.state import TrainState
from jaxinpaint.weights import store


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The workdir of a run with checkpoints of the steps 3 and 5, with averages."""
  workdir = tmp_path_factory.mktemp('secret') / 'run'
  config = config_lib.base('misf').unlock()
  config.model.update(dict(width=4, blocks=1))
  config.data.source = f'folder:{workdir}'
  config.init_from = str(workdir)
  config.loss.vgg_file = str(workdir / 'vgg.pth')
  params, stats = systems.make_recipe(config).shapes()
  fill = lambda tree, value: jax.tree.map(lambda x: jnp.full(x.shape, value, x.dtype), tree)
  saver = Checkpoints(workdir)
  for step in (3, 5):
    ema = {'generator': fill(params['generator'], step / 8)}
    state = TrainState(jnp.int32(step), fill(params, 9), fill(stats, 0), {}, ema)
    saver.save(state, config, {'batch_size': 8, 'length': 40})
  saver.close()
  return workdir


@pytest.fixture
def report(tmp_path):
  """(weights as a report notes them, rows) -> folder of a report."""

  def write(weights, rows=('misf',)):
    results = report_cases.make(
      {name: float(i) for i, name in enumerate([*rows, 'Telea'])},
      kinds={**dict.fromkeys(rows, 'system'), 'Telea': 'fill'},
      notes={'weights': weights},
    )
    return files.write(results, tmp_path / 'report')

  return write


def call(capsys, *arguments):
  status = cli.main([str(a) for a in arguments])
  return status, *capsys.readouterr()


def test_a_run_becomes_one_file_with_its_card(run, report, tmp_path, capsys):
  folder = report(f'{run}, step 5')
  words = ['--dtype', 'float16', '--licence', 'CC0', '--note', 'one', '--note', 'two']
  status, out, _ = call(
    capsys, 'export', run, tmp_path / 'x.safetensors', *words, '--results', folder
  )
  assert status == 0 and 'wrote' in out and 'MB' in out
  assert not (tmp_path / 'x.json').exists()
  found = trained.load(tmp_path / 'x.safetensors')
  assert set(found.variables.params) == {'generator'}
  assert {float(x.max()) for x in jax.tree.leaves(found.variables.params)} == {5 / 8}
  meta = store.load(tmp_path / 'x').meta
  assert meta['source'] == {
    'step': 5,
    'images': 40,
    'batch_size': 8,
    'size': 256,
    'data': {'kind': 'folder', 'count': 40},
    'started_from': 'other weights',
    'jaxinpaint': meta['created_by'].split()[1],
  }
  assert (meta['licence'], meta['notes']) == ('CC0', ['one', 'two'])
  means = meta['results']['means']
  wanted = files.load(folder).results.values('misf', report_cases.BINS[1], 'hole_ssim')
  assert means['20-40']['hole_ssim'] == pytest.approx(np.mean(wanted), abs=1e-4)
  assert meta['results']['protocol'] == 'seed000' and meta['results']['images'] == 12
  assert 'secret' not in json.dumps(meta) and found.config.loss.vgg_file == 'vgg.pth'

  status, out, _ = call(capsys, 'show', tmp_path / 'x.safetensors')
  assert status == 0
  for words in ('float16', 'CC0', '5 steps of 8', '40 images (folder)', 'two', '20-40 %: '):
    assert words in out
  assert 'model.width: 64 -> 4' in out


def test_an_earlier_step_and_what_nobody_said(run, tmp_path, capsys):
  status, out, _ = call(capsys, 'export', f'{run}@3', tmp_path / 'x')
  assert status == 0 and '--licence' in out
  found = trained.load(tmp_path / 'x')
  assert {float(x.max()) for x in jax.tree.leaves(found.variables.params)} == {3 / 8}
  assert 'not stated' in call(capsys, 'show', tmp_path / 'x')[1]


@pytest.mark.parametrize(
  ('weights', 'rows', 'flags', 'why'),
  [
    ('run, step 3', ('misf',), (), r'evaluates step 3, but step 5 is exported'),
    ('', ('a', 'b'), (), r'has 2 rows of systems: name that of the run with --row, one of: a, b'),
    ('', ('a', 'b'), ('--row', 'c'), r"has no row 'c'; it has: a, b, Telea"),
  ],
)
def test_results_of_something_else(run, report, tmp_path, capsys, weights, rows, flags, why):
  folder = report(weights, rows)
  arguments = ('export', run, tmp_path / 'x', '--results', folder, *flags)
  status, _, error = call(capsys, *arguments)
  assert status == 1 and why in error and not (tmp_path / 'x.safetensors').exists()


def test_mistakes_are_sentences_and_write_nothing(run, tmp_path, capsys):
  (tmp_path / 'x.safetensors').write_bytes(b'mine')
  for arguments, why in (
    (('export', run, tmp_path / 'x'), 'allow overwriting'),
    (('export', f'{run}@4', tmp_path / 'y'), 'no checkpoint of step 4'),
    (('export', tmp_path / 'none', tmp_path / 'y'), 'no weights at'),
    (('export', run, tmp_path / 'y', '--results', tmp_path), 'holds no report'),
    (('export', run, tmp_path / 'y', '--merge'), 'misf has one form only: leave out --merge'),
    (('show', run), 'is a folder'),
    (('show', 'mesff/none'), 'come with the library: mesff/box'),
  ):
    status, out, error = call(capsys, *arguments)
    assert (status, out) == (1, '') and why in error, arguments
  assert [p.name for p in tmp_path.iterdir()] == ['x.safetensors']
  assert (tmp_path / 'x.safetensors').read_bytes() == b'mine'


def test_kernels_that_are_trained_as_sums_are_exported_as_one(tmp_path, capsys):
  config = config_lib.base('migan').unlock()
  config.model.update(dict(size=8, max_channels=2))
  shapes = systems.inference(config).shapes()
  params, stats = jax.tree.map(lambda x: jnp.full(x.shape, 0.5, x.dtype), shapes)
  saver = Checkpoints(tmp_path / 'run')
  saver.save(
    TrainState(jnp.int32(1), params, stats, {}, {}), config, {'batch_size': 8, 'length': 40}
  )
  saver.close()
  sizes = {}
  for flags in ((), ('--merge',)):
    status, _, _ = call(capsys, 'export', tmp_path / 'run', tmp_path / 'x', '--overwrite', *flags)
    found = trained.load(tmp_path / 'x')
    kernels = found.variables.params['generator']['synthesis']['rgb8']
    sizes[found.config.model.form] = sum(x.size for x in jax.tree.leaves(found.variables.params))
    assert status == 0 and set(kernels) == {'bias', 'kernel' if flags else 'kernels'}
  assert sizes['merged'] < sizes['training'] / 3
  np.testing.assert_allclose(kernels['kernel'], 2**-0.5, rtol=1e-5)  # two channels, norm 1
