"""What earlier versions stored keeps loading: it predicts, continues and measures as it did then.

make.py wrote the files, with the code of each version. The tolerances are those of float32 sums
that another machine or another compiler adds up in another order: a picture may differ by one level
of 255, where a value lay between two; a mean of an evaluation by a thousandth. A resumed run takes
two steps: the losses of the first are those of the stored state, those of the second come after one
more step of the stored optimizers, which magnifies such differences.

Every kind of run loads and predicts; compiling takes longest, so one run with averages, clipping
and accumulation stands for the others' training and evaluation: `pytest -m slow` takes them all.
"""

import faulthandler
import json
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

import jaxinpaint
from jaxinpaint import migrations, systems, trained
from jaxinpaint.cli import main as cli
from jaxinpaint.systems._shared import joint_loss
from jaxinpaint.training import checkpoints as training_checkpoints
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import loop, preparation
from jaxinpaint.weights import checkpoints

HERE = pathlib.Path(__file__).parent
RUNS = sorted(HERE.glob('*/*.tar.xz'))
VERSIONS = sorted(p.parent for p in HERE.glob('*/configs.json'))
QUICK = ('aotgan',)
KEPT, STEPS = 4, 6  # the newest stored checkpoint, and the end of the run


def name_of(run):
  return run.name.removesuffix('.tar.xz')


def label(run):
  return f'{run.parent.name}-{name_of(run)}'


def expected(run):
  return json.loads(run.with_name(f'{name_of(run)}.json').read_text())


@pytest.fixture
def workdir(run, tmp_path):
  with tarfile.open(run) as tar:
    tar.extractall(tmp_path, filter='data')
  return tmp_path / name_of(run)


every_run = pytest.mark.parametrize('run', RUNS, ids=label)
quick_runs = pytest.mark.parametrize(
  'run',
  [pytest.param(r, marks=() if name_of(r) in QUICK else pytest.mark.slow) for r in RUNS],
  ids=label,
)
every_version = pytest.mark.parametrize('version', VERSIONS, ids=lambda p: p.name)


def assert_paints(path, version, picture):
  image, mask = (np.asarray(Image.open(version / f'{n}.png')) for n in ('image', 'mask'))
  found = jaxinpaint.load(path)(image, mask).astype(int)
  wanted = np.asarray(Image.open(picture)).astype(int)
  assert (found == image)[mask == 0].all()
  assert (wanted != image)[mask > 0].any()
  difference = np.abs(found - wanted)
  assert difference.max() <= 1 and difference.mean() < 0.05


@every_run
def test_a_run_paints_the_same_picture(run, workdir):
  assert_paints(workdir, run.parent, run.with_name(f'{name_of(run)}.png'))


@every_version
def test_a_weights_file_paints_the_same_picture(version):
  assert_paints(version / 'weights.safetensors', version, version / 'weights.png')


@quick_runs
def test_a_run_evaluates_to_the_same_numbers(run, workdir, tmp_path):
  wanted = expected(run)['evaluation']
  output = tmp_path / 'report'
  flags = ['--workdir', workdir, '--fills', 'none', '--bins', ','.join(wanted), '--output', output]
  assert cli.main(['evaluate', *map(str, flags)]) == 0
  rows = json.loads((output / 'metrics.json').read_text())['results']
  found = {(r['bin'], r['metric']): r['mean'] for r in rows}
  for label, means in wanted.items():
    for metric, mean in means.items():
      assert found[label, metric] == pytest.approx(mean, rel=1e-3), (label, metric)


@quick_runs
def test_a_run_goes_on_as_it_went_on_then(run, workdir):
  wanted = expected(run)
  before, _ = checkpoints.read(checkpoints.find(workdir))
  config = migrations.migrate(json.loads((workdir / 'config.json').read_text()), config_lib.base)
  last = loop.train(config, workdir)
  assert int(last.step) == STEPS
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  losses = {line['step']: line for line in lines if line['step'] > KEPT}
  for step, tolerance in ((KEPT + 1, 1e-3), (KEPT + 2, 1e-2)):
    for term, value in wanted['losses'][str(step)].items():
      assert losses[step][term] == pytest.approx(value, rel=tolerance, abs=1e-5), (step, term)
  after = last.params | last.ema
  for network, way in wanted['moved'].items():
    assert distance(before[network], after[network]) == pytest.approx(way, rel=1e-2), network


def test_without_config_a_run_goes_on_with_its_own(tmp_path, monkeypatch, capsys):
  run = next(r for r in RUNS if name_of(r) == QUICK[0])
  with tarfile.open(run) as tar:
    tar.extractall(tmp_path, filter='data')
  workdir = tmp_path / name_of(run)
  started = []
  monkeypatch.setattr(faulthandler, 'enable', lambda: None)  # wants a file, which capsys has not
  monkeypatch.setattr(loop, 'train', lambda config, workdir, **_: started.append((config, workdir)))
  words = ['train', '--workdir', str(workdir)]
  assert cli.main([*words, '--config.training.steps=9', '--config.data.flip=false']) == 0
  ((config, where),) = started
  wanted = migrations.migrate(json.loads((workdir / 'config.json').read_text()), config_lib.base)
  assert config_lib.differences(wanted, config) == [
    'data.flip: True -> False', 'training.steps: 6 -> 9',
  ]  # fmt: skip
  assert where == str(workdir) and config.is_locked
  # A damaged checkpoint is passed over, as it is when the run goes on.
  (checkpoints.find(workdir) / 'meta' / 'metadata').write_text('{}')
  assert not config_lib.differences(wanted, training_checkpoints.stored_config(workdir))
  for command, message in (
    ([*words, '--config.training.stepz=9'], 'the config of the run has no field stepz; is steps'),
    (
      ['train', f'--workdir={tmp_path}'],
      f'{tmp_path} has no checkpoint to go on from',
    ),
  ):
    with pytest.raises(SystemExit):
      cli.main(command)
    assert message in capsys.readouterr().err


def distance(a, b):
  if hasattr(a, 'items'):
    return np.sqrt(sum(distance(a[k], b[k]) ** 2 for k in a))
  return np.linalg.norm(np.asarray(a) - np.asarray(b))


@every_version
def test_the_configs_of_every_experiment_are_brought_to_today(version):
  stored = json.loads((version / 'configs.json').read_text())
  assert {c['system'] for c in stored.values()} <= set(systems.list_systems())
  for name, old in stored.items():
    config = migrations.migrate(old, config_lib.base)
    if not config.init_from:
      config_lib.validate(config)
    assert systems.make_recipe(config).phases, name
    assert not config.data.reduced_decode  # its batches stay the same to the bit


def test_a_new_loss_field_changes_nothing_for_stored_runs(monkeypatch, tmp_path):
  """One such field made every run of this kind unloadable before configs had versions."""
  run = next(r for r in RUNS if name_of(r) == QUICK[0])
  fields = systems.default_config(QUICK[0])
  fields.loss.new = 0.0
  recipe = systems.module(QUICK[0], 'recipe')
  monkeypatch.setattr(recipe, 'default_config', fields.copy_and_resolve_references)
  monkeypatch.setattr(joint_loss, 'LOSS_FIELDS', (*joint_loss.LOSS_FIELDS, 'new'))
  with tarfile.open(run) as tar:
    tar.extractall(tmp_path, filter='data')
  workdir = tmp_path / name_of(run)
  assert trained.load(workdir).config.loss.new == 0.0
  stored = json.loads((workdir / 'config.json').read_text())
  resumed = preparation.prepare(migrations.migrate(stored, config_lib.base), workdir)
  resumed.batches.close()
  resumed.checkpoints.close()
  assert int(resumed.state.step) == KEPT
