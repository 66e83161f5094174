"""`jaxinpaint.load` and `jaxinpaint inpaint`: weights, options, the command and the program."""

import pathlib
import subprocess
import sys

import numpy as np
import picture_files
import pytest
import toy_system
from ml_collections import ConfigDict
from PIL import Image

import jaxinpaint
from jaxinpaint import systems
from jaxinpaint.cli import inpaint
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.runtime import traces
from jaxinpaint.weights import names, store

ROOT = pathlib.Path(__file__).parent.parent.parent
rng = np.random.default_rng(2)


@pytest.fixture
def desk(tmp_path):
  return picture_files.desk(tmp_path)


@pytest.fixture
def weights(tmp_path, monkeypatch):
  inference = toy_system.inference(multiple=8)
  monkeypatch.setattr(systems, 'inference', lambda config: inference)
  config = {'system': 'toy', 'dtype': 'float32', 'model': {}, 'loss': {}}
  monkeypatch.setattr(systems, 'default_config', lambda system: ConfigDict(config))
  return store.save(tmp_path / 'toy.safetensors', 'toy', config, *toy_system.variables())


def test_load_a_weights_file(weights):
  image = rng.integers(0, 256, (20, 13, 3), dtype=np.uint8)
  hole = toy_system.hole(20, 13) > 0
  inpainter = jaxinpaint.load(weights, batch_size=2, max_side=64)
  out = inpainter(image, hole)
  assert (out[hole] == [51, 153, 204]).all() and (out[~hole] == image[~hole]).all()
  assert inpainter.batch_size == 2 and inpainter.max_side == 64 and 'toy' in inpainter.name
  assert isinstance(inpainter, jaxinpaint.Inpainter)
  assert 'mesff' in jaxinpaint.list_systems()


def test_load_a_workdir(weights, tmp_path):
  import jax
  import jax.numpy as jnp

  from jaxinpaint.training.checkpoints import Checkpoints
  from jaxinpaint.training.state import TrainState

  saver = Checkpoints(tmp_path / 'run', keep=2)
  config = ConfigDict({'system': 'toy', 'dtype': 'float32', 'model': {}, 'loss': {}})
  for step, colour in ((3, (0.0, 0.0, 0.0)), (5, (1.0, 1.0, 1.0))):
    params = jax.tree.map(jnp.asarray, toy_system.variables(colour).params)
    ema = jax.tree.map(jnp.asarray, toy_system.variables().params) if step == 5 else {}
    saver.save(TrainState(jnp.int32(step), params, {}, {}, ema), config, {})
  saver.close()
  image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
  hole = toy_system.hole(20, 24) > 0
  newest = jaxinpaint.load(tmp_path / 'run')
  assert 'step 5' in newest.name
  assert (newest(image, hole)[hole] == [51, 153, 204]).all()  # the average, not what it follows
  assert (jaxinpaint.load(tmp_path / 'run', step=3)(image, hole)[hole] == 0).all()
  at = jaxinpaint.load(f'{tmp_path}/run@3')
  assert 'step 3' in at.name and (at(image, hole)[hole] == 0).all()
  with pytest.raises(store.StoreError, match=r'no checkpoint of step 4.*\[3, 5\]'):
    jaxinpaint.load(tmp_path / 'run', step=4)


def test_an_option_out_of_range_is_named_before_anything_is_read(tmp_path):
  with pytest.raises(InpaintError, match='pad_to 0'):
    jaxinpaint.load(tmp_path / 'none', pad_to=0)
  with pytest.raises(InpaintError, match='pad_to 4097 must be at most 4096'):
    jaxinpaint.load(tmp_path / 'none', pad_to=4097)


def test_the_limit_of_padding_is_of_what_the_network_sees():
  assert toy_system.inpainter(multiple=8, pad_to=512).padded_size(20, 24) == (512, 512)
  words = 'pad_to 4095 pads sides to multiples of 32760, because the network takes multiples of 8'
  with pytest.raises(ValueError, match=words):
    toy_system.inpainter(multiple=8, pad_to=4095)
  with pytest.raises(ValueError, match=words):
    toy_system.inpainter(multiple=8).predictor.padded_to(4095)


def command(**flags):
  """The exit code of `jaxinpaint inpaint` with these flags."""
  return inpaint.main([f'--{name}={value}' for name, value in flags.items()])


def test_the_command(weights, desk, capsys):
  where = dict(weights=weights, mask=desk / 'm.png')
  assert command(**where, image=desk / 'a.png', output=desk / 'o.png') == 0
  assert (desk / 'o.png').exists()
  assert command(**where, image=desk / 'a.png', output=desk / 'o.png') == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and 'exists: pass --overwrite' in error
  Image.fromarray(np.full((20, 24), 255, np.uint8)).save(desk / 'full.png')
  full = dict(weights=weights, image=desk / 'a.png', mask=desk / 'full.png')
  assert command(**full, output=desk / 'p.png') == 2
  assert 'black, or pass --invert_mask' in capsys.readouterr().err
  (desk / 'images' / 'text.png').write_text('no image')
  assert command(**where, image=desk / 'images', output=desk / 'out') == 1
  assert '1 of 2 images failed' in capsys.readouterr().err and (desk / 'out' / 'b.png').exists()


def test_a_second_start_traces_nothing(weights, desk, tmp_path, monkeypatch):
  traced = []

  def paint(variables, constants, image, mask, rng):
    traced.append(image.shape)
    return image + mask * variables.params['generator']['colour']

  inference = toy_system.inference(paint, multiple=8)
  monkeypatch.setattr(systems, 'inference', lambda config: inference)
  monkeypatch.setattr(traces, 'beside', lambda programs: tmp_path / 'programs')
  files = dict(weights=weights, image=desk / 'a.png', mask=desk / 'm.png')
  for name in ('one.png', 'two.png'):
    assert command(**files, output=desk / name) == 0
  assert len(traced) == 1
  assert (desk / 'one.png').read_bytes() == (desk / 'two.png').read_bytes()
  assert command(**files, output=desk / 'three.png', seed=1) == 0
  assert len(traced) == 2


def test_without_weights_the_default_ones_are_used(weights, desk, capsys, monkeypatch):
  files = dict(image=desk / 'a.png', mask=desk / 'm.png', output=desk / 'o.png')
  monkeypatch.setattr(names, 'FOLDER', weights.parent)
  assert command(**files) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and f'weights {names.DEFAULT} are not in this installation' in error
  monkeypatch.setitem(names.FILES, names.DEFAULT, weights.name)
  assert command(**files) == 0
  assert f'1 image written by {names.DEFAULT}' in capsys.readouterr().out
  assert jaxinpaint.load().name == names.DEFAULT


def inpaint_py(*flags):
  return subprocess.run(
    [sys.executable, 'inpaint.py', *map(str, flags)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_the_program_says_what_is_wrong_in_a_sentence(desk):
  paths = ['--image', desk / 'a.png', '--mask', desk / 'm.png', '--output', desk / 'o.png']
  process = inpaint_py('--weights', desk / 'none.safetensors', *paths)
  assert process.returncode == 2 and 'Traceback' not in process.stderr
  assert 'there are no weights at' in process.stderr
  process = inpaint_py('--weights', 'a', '--workdir', 'b', *paths)
  assert process.returncode != 0 and 'give either --weights or --workdir' in process.stderr
  assert 'Traceback' not in process.stderr


def test_importing_the_library_alone_is_light():
  code = "import jaxinpaint, sys; assert 'jax' not in sys.modules; print(dir(jaxinpaint))"
  process = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
  )
  assert process.returncode == 0, process.stderr
  assert 'load' in process.stdout and 'list_systems' in process.stdout
