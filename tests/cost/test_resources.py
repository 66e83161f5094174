import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import zoo
from jaxinpaint import systems
from jaxinpaint.cli import experiments
from jaxinpaint.cli import resources as command
from jaxinpaint.cost import costs, resources
from jaxinpaint.layers import conv, operations
from jaxinpaint.recipe import Inference, Phase, Plan, Recipe, Update
from jaxinpaint.report.resources import RESOURCES, shown
from jaxinpaint.runtime import memory
from jaxinpaint.training import config as config_lib

ROOT = pathlib.Path(__file__).parents[2]


def shape(*s):
  return jax.ShapeDtypeStruct(s, jnp.float32)


def test_flops_are_those_of_the_plain_convolutions_on_every_backend():
  # 6 x 5 outputs of 3 x 3 x 4 multiply-adds, 7 channels; padding counts as the machine's own zeros.
  run = lambda x, k: conv.conv2d(x, k, stride=1, padding=1)
  assert operations.useful_flops(run, shape(2, 6, 5, 4), shape(3, 3, 4, 7)) == (
    2 * 2 * 6 * 5 * 3 * 3 * 4 * 7
  )
  scanned = lambda a, b: jax.lax.scan(lambda x, _: (x @ b, None), a, None, length=5)[0]
  assert operations.useful_flops(scanned, shape(8, 3), shape(3, 3)) == 5 * 2 * 8 * 3 * 3


@pytest.mark.parametrize('system', systems.list_systems())
def test_parameters_and_operations_are_the_zoos(system):
  # Both are of the published networks at 256 x 256.
  known = json.loads((ROOT / 'docs' / 'zoo.json').read_text())[system]
  recipe = zoo.recipe_of(system)
  inference, variables = recipe.inference, recipe.shapes()
  assert known['predict_networks'] == list(inference.networks)
  counts = {network: costs.count(found) for network, found in variables.params.items()}
  assert counts == known['parameters']
  weights = variables.pick(inference.networks), inference.load_constants(shapes_only=True)
  assert costs.gflops(inference, weights, 256) == pytest.approx(known['gflops'], abs=0.005)


def recipe_of(*phases):
  return Recipe(Inference(('g',), None, None), ('g', 'd'), None, phases)


def update(name, trains, every=1):
  return Update(name, (trains,), lambda *a: None, trains, every=every)


def test_plans_count_every_step_of_the_schedule():
  lazy = Phase('b', -1, lambda *a: None, (update('d', 'd'), update('r1', 'd', every=4)))
  recipe = recipe_of(Phase('a', 3, lambda *a: None, (update('g', 'g'),)), lazy)
  counts = costs.plans(recipe, 3 + 10)
  # Of ten steps the 1st, 5th and 9th also regularise.
  assert counts == {Plan(0, ('g',)): 3, Plan(1, ('d', 'r1')): 3, Plan(1, ('d',)): 7}
  brute = [recipe.plan(k) for k in range(13)]
  assert counts == {p: brute.count(p) for p in brute}
  # A run that ends within a phase never takes the later steps.
  assert costs.plans(recipe, 2) == {Plan(0, ('g',)): 2}


def test_the_hole_of_the_pictures_is_empty():
  image, mask = costs.pictures(3, 50)
  assert image.shape == (3, 50, 50, 3) and mask.mean() == pytest.approx(0.25, abs=0.01)
  assert not image[mask[..., 0] > 0].any() and image[mask[..., 0] == 0].any()
  assert not np.array_equal(image[0], image[1])


def test_host_memory_is_this_programs_own_peak():
  code = (
    'import numpy as np\n'
    'from jaxinpaint.runtime import memory\n'
    'before = memory.host_peak_gb()\n'
    'x = np.ones(400_000_000, np.uint8); del x\n'
    'print(before, memory.host_peak_gb())'
  )
  # As the child of a larger program: getrusage would give it that program's size.
  parent = (
    'import subprocess, sys\nx = bytearray(b"1") * 1_000_000_000\n'
    'sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)'
  )
  done = subprocess.run(
    [sys.executable, '-c', parent, code], capture_output=True, text=True, cwd=ROOT, check=True
  )
  before, after = map(float, done.stdout.split())
  assert before < 0.9
  assert after - before == pytest.approx(0.4, abs=0.1)


@pytest.fixture(scope='module')
def weights(tmp_path_factory, narrow_glcic):
  path = tmp_path_factory.mktemp('weights') / 'gl.safetensors'
  return path, narrow_glcic(path, 64)


def test_predict_says_everything_that_is_promised(weights):
  path, params = weights
  said = []
  costs.predict(str(path), 32, 2, 2, lambda key, value: said.append((key, value)))
  values = {n: v for key, found in said if key == 'values' for n, v in found.items()}
  promised = {r.name for r in RESOURCES if not r.name.startswith('train_')}
  # A CPU does not count its own peak: what the program plans stands in its place, by its own name.
  assert set(values) == promised - {'device_gb'}
  assert values['parameters'] == sum(x.size for x in jax.tree.leaves(params))
  assert values['size'] == 32 and values['largest_batch'] == 2
  # The compiler counts no multiplication by the zeros of a border, and counts activations.
  assert 0.5 < values['compiled_gflops'] / values['gflops'] < 2
  # The weights alone are part of what the program needs.
  assert values['planned_gb'] > 4 * values['parameters'] / memory.GB
  best = values['seconds_per_image_best_batch']
  assert 0 < best <= values['seconds_per_image'] and values['best_batch'] in (1, 2)
  json.dumps(values, allow_nan=False)


def test_an_experiment_that_never_ran_is_measured_with_random_weights():
  # One network, two phases: little to compile, and they take different times.
  config = experiments.named('celebahq_pconv:quicktest')
  config.model.levels = 3
  fields = json.loads(config.to_json_best_effort())
  said = []
  say = lambda key, value: said.append((key, value))
  costs.predict(fields, 64, 1, 1, say)
  longer = fields | {'phases': fields['phases'] | {'training': 52}}
  longer['training'] = fields['training'] | {'steps': 54}
  costs.train(fields, 16, 0, 1, say, [longer])
  values = {n: v for key, found in said if key == 'values' for n, v in found.items()}
  promised = {r.name for r in RESOURCES} - {'device_gb', 'train_device_gb'}
  assert set(values) == promised
  assert values['train_batch'] == 16 and values['train_size'] == config.data.size
  ((other,),) = (found for key, found in said if key == 'like')
  assert (values['train_steps'], other['train_steps']) == (4, 54)
  for found in (values, other):  # the training's own batch is half the measured one
    hours = 0.5 * found['train_steps'] * found['train_seconds_per_step'] / 3600
    assert found['train_hours'] == pytest.approx(hours)
  assert values['train_seconds_per_step'] != other['train_seconds_per_step']


def test_the_seconds_of_plans_are_weighed_by_their_steps():
  a, b = Plan(0, ('g',)), Plan(1, ('d', 'g'))
  assert costs._hours({a: 3, b: 1}, {a: 1.0, b: 5.0}, batches=2) == dict(
    train_steps=4, train_seconds_per_step=2.0, train_hours=16 / 3600
  )


def test_equal_networks_and_steps_are_measured_once(monkeypatch):
  asked = []

  def run(what, job):
    asked.append((what, job))
    if what == 'predict':
      return [{'values': {'gflops': 1.0}}], 0
    others = [{'train_hours': 2.0} for _ in job.get('like', ())]
    return [{'like': others}, {'values': {'train_hours': 1.0, 'train_batch': 4}}], 0

  monkeypatch.setattr(resources, '_run', run)
  names = dict(a='places2_csa', b='celeba_csa', c='celeba_dfnet', d='places2_dfnet')
  names |= dict(e='celeba_glcic', f='celeba_glcic_tf')
  found = resources.measure({name: experiments.named(c) for name, c in names.items()})
  whats = ('predict', 'train')
  jobs = [(what, job['row']['system'], len(job.get('like', ()))) for what, job in asked]
  alike = (('csa', 1), ('dfnet', 1), ('glcic', 0), ('glcic', 0))
  assert jobs == [(what, s, n if what == 'train' else 0) for s, n in alike for what in whats]
  # A schedule is a row's own, and what a step needs is of both.
  hours = {name: values['train_hours'] for name, values in found.resources.items()}
  assert hours == dict(a=1.0, b=2.0, c=1.0, d=2.0, e=1.0, f=1.0)
  assert all(values['train_batch'] == 4 for values in found.resources.values())
  assert asked[1][1]['row'] == json.loads(experiments.named('places2_csa').to_json_best_effort())


def test_a_row_can_be_the_config_of_an_experiment(monkeypatch):
  done = [{'values': {'gflops': 1.0}}], 0
  asked = lines(monkeypatch, check=([], 0), predict=done, train=done)
  assert command.main(['--row', 'a=config:places2_csa']) == 0
  assert [(what, job['row']['system']) for what, job in asked] == [
    ('predict', 'csa'),
    ('train', 'csa'),
  ]


def test_batches_end_where_memory_does(weights, monkeypatch):
  said = []
  monkeypatch.setattr(costs, 'free_bytes', lambda device: 0)
  costs.predict(str(weights[0]), 32, 64, 1, lambda key, value: said.append((key, value)))
  values = {n: v for key, found in said if key == 'values' for n, v in found.items()}
  assert values['best_batch'] == values['largest_batch'] == 1
  assert ('not_measured', {'best_batch': 'batches of 2 and more do not fit into memory'}) in said


def test_compilation_is_measured_without_the_cache(tmp_path):
  cache = jax.config.jax_compilation_cache_dir
  least = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  from jax.experimental.compilation_cache import compilation_cache

  compilation_cache.reset_cache()
  try:
    with costs.without_cache():
      jax.jit(lambda x: x * 3 + 1).lower(1.0).compile()
    assert not list(tmp_path.iterdir())
    jax.jit(lambda x: x * 3 + 2).lower(1.0).compile()
    assert list(tmp_path.iterdir())
  finally:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', least)
    compilation_cache.reset_cache()


def test_a_weights_file_does_not_say_how_it_was_trained(weights):
  with pytest.raises(ValueError, match=r'gl\.safetensors is no run .* give the --workdir'):
    costs.run_config(str(weights[0]))


def test_runs_of_earlier_versions_are_completed(tmp_path):
  known = config_lib.base('glcic')
  old = config_lib.base('glcic').unlock()
  del old.version, old.data['flip'], old.checkpoint
  old.data.size, old.model.width, old.optimizers.generator = 96, 3, dict(name='adam')
  (tmp_path / 'config.json').write_text(old.to_json_best_effort())
  new = costs._alone(costs.run_config(str(tmp_path)), 'somewhere', 2, 0)
  assert new.data.flip == known.data.flip and new.checkpoint.to_dict() == known.checkpoint.to_dict()
  assert (new.data.size, new.data.batch_size, new.model.width) == (96, 2, 3)
  assert list(new.optimizers) == ['generator'] and new.data.source == 'sample'


def lines(monkeypatch, **by_what):
  """Replaces the processes: {what: (lines, exit code)}."""
  asked = []

  def run(what, job):
    asked.append((what, job))
    return by_what.get(what, ([], 0))

  monkeypatch.setattr(resources, '_run', run)
  return asked


def test_what_a_killed_process_had_found_is_kept(monkeypatch):
  asked = lines(
    monkeypatch,
    predict=([{'values': {'gflops': 2.0}}, {'stage': 'batch 4'}], -9),
    train=([{'error': 'w is no run'}], 1),
    fill=([{'values': {'seconds_per_image': 0.1}}], 0),
  )
  found = resources.measure({'a': 'w'}, ['telea'], size=64, train_batch=2)
  assert found.resources == {'a': {'gflops': 2.0}, 'Telea': {'seconds_per_image': 0.1}}
  assert found.not_measured['a'] == {
    'batch 4': 'its process ended with exit code -9 at batch 4, as one that runs out of memory',
    'training': 'w is no run',
  }
  assert [what for what, _ in asked] == ['check', 'predict', 'train', 'fill']
  assert asked[1][1]['size'] == 64 and asked[2][1]['batch_size'] == 2
  text = resources.table(found)
  assert 'GFLOPs (GFLOP per image) | 2.00 | –' in text and 'a, training: not measured' in text
  document = json.loads(json.dumps(found.to_json(), allow_nan=False))
  assert {'gflops', 'host_gb'} <= {m['name'] for m in document['methods'] if m['method']}


def test_the_row_that_is_wrong_is_named_before_anything_is_measured(monkeypatch):
  stages = [{'stage': 'v'}, {'stage': 'w'}, {'error': 'there is no w'}]
  asked = lines(monkeypatch, check=(stages, 1))
  with pytest.raises(resources.ResourceError, match='--row b: there is no w'):
    resources.measure({'a': 'v', 'b': 'w'})
  assert len(asked) == 1


def test_a_folder_of_outputs_costs_nothing_here(monkeypatch, tmp_path):
  asked = lines(monkeypatch)
  found = resources.measure({'theirs': tmp_path})
  assert not asked and not found.resources and 'folder of outputs' in str(found.not_measured)


def test_half_a_line_of_a_killed_process_is_not_read(monkeypatch):
  def run(command, **_):
    to = json.loads(command[-1])['to']
    pathlib.Path(to).write_text('{"values": {"gflops": 1.0}}\n{"values": {"host')
    return subprocess.CompletedProcess(command, -9)

  monkeypatch.setattr(resources.subprocess, 'run', run)
  assert resources._run('predict', {}) == ([{'values': {'gflops': 1.0}}], -9)


def test_the_processes_that_measure_do_measure(tmp_path):
  found = resources.measure({}, ['mean'], size=8, repeats=1)
  assert set(found.resources['mean fill']) == {'size', 'seconds_per_image', 'host_gb'}
  with pytest.raises(resources.ResourceError, match='--row a: there are no weights'):
    resources.measure({'a': tmp_path / 'w.safetensors'})


@pytest.mark.parametrize(
  ('words', 'sentence'),
  [
    ([], '--row NAME=PATH'),
    (['--row', 'x'], 'must be NAME=PATH'),
    (['--fills', 'magic'], "unknown fill 'magic'; there are: mean, telea"),
    (['--row', 'a=config:celeba_cs'], "no config of the name 'celeba_cs'; there are celeba_csa"),
    (['--row', 'a=config:survey_study'], 'it has no field system'),
    (['--row', 'a=config:survey_study:quicktest'], 'this config has no variants'),
    (['--row', 'a=config:celeba_csa:tiny'], "unknown config variant 'tiny'"),
    (['--row', 'a=b', '--size', '4'], '--size 4 must be at least 8'),
    (['--row', 'a=b', '--repeats', '0'], '--repeats 0 must be at least 1'),
    (['--fills', 'telea', '--output', '/nowhere/x.json'], 'there is no folder /nowhere'),
  ],
)
def test_wrong_words_end_in_a_sentence(words, sentence, capsys, monkeypatch):
  lines(monkeypatch)
  assert command.main(words) == 1
  assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
  ('name', 'value', 'text'),
  [
    ('parameters', 6_072_131, '6.07 M'),
    ('best_batch', 8, '8'),
    ('train_steps', 880_000, '880,000'),
    ('seconds_per_image', 0.021345, '0.0213'),
    ('gflops', 65.1134, '65.1'),
    ('train_hours', 1132.4, '1,132'),
    ('host_gb', 2.0, '2.00'),
  ],
)
def test_numbers_keep_three_digits(name, value, text):
  assert shown(name, value) == text


@pytest.mark.slow
def test_a_run_is_measured_whole(tmp_path):
  """The real processes: a run of a few steps, its prediction and its training."""
  from jaxinpaint.training import config as config_lib
  from jaxinpaint.training import loop

  config = config_lib.quicktest(config_lib.base('glcic'))
  config.optimizers = {
    n: dict(name='adam', learning_rate=1e-3) for n in ('generator', 'discriminator')
  }
  config.training.update(dict(sample_every=0, evaluate_every=0))
  loop.train(config, tmp_path / 'run')
  found = resources.measure(
    {'gl': tmp_path / 'run'}, ['mean'], size=64, max_batch=2, repeats=2, train_steps=1
  )
  values = found.resources['gl']
  assert not found.not_measured
  assert {r.name for r in RESOURCES} - {'device_gb', 'train_device_gb'} == set(values)
  assert values['train_steps'] == 6 and values['train_batch'] == 8
  assert values['train_hours'] == pytest.approx(6 * values['train_seconds_per_step'] / 3600)
