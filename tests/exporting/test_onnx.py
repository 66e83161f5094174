"""A system as an ONNX file gives in onnxruntime what jaxinpaint gives."""

import dataclasses
import json
import pathlib

import goldens
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from skimage import data
from test_completeness import CONFIGS, get_config

import jaxinpaint
from jaxinpaint import systems
from jaxinpaint.exporting import function
from jaxinpaint.exporting import onnx as onnx_format
from jaxinpaint.predictor import Predictor
from jaxinpaint.recipe import Variables
from jaxinpaint.trained import Trained, load
from jaxinpaint.weights import mapping


def toy(system):
  """A system as its configuration `quicktest` has it, with random weights."""
  config = next(c for p in CONFIGS if (c := get_config(p, 'quicktest')).system == system)
  inference = systems.make_recipe(config).inference
  rng = np.random.default_rng(0)

  def numbers(path, leaf):
    drawn = rng.standard_normal(leaf.shape).astype(np.float32)
    if leaf.ndim > 1:
      return drawn / np.sqrt(np.prod(leaf.shape[:-1]))
    spread = any(word in jax.tree_util.keystr(path) for word in ('var', 'scale'))
    return 1 + 0.1 * np.abs(drawn) if spread else 0.1 * drawn

  variables = jax.tree_util.tree_map_with_path(numbers, inference.shapes())
  constants = inference.load_constants()
  return Trained(pathlib.Path('toy.safetensors'), None, config, inference, variables, constants, {})


def pictures(count, height, width):
  """f32[B,H,W,3], f32[B,H,W,1] with a box as hole."""
  image = np.random.default_rng(1).random((count, height, width, 3), np.float32)
  mask = np.zeros((count, height, width, 1), np.float32)
  mask[:, height // 4 : height // 2, width // 3 : width // 2 + 3] = 1
  return image, mask


def run(made, image, mask):
  session = onnxruntime.InferenceSession(made.SerializeToString())
  assert [x.name for x in session.get_inputs()] == ['image', 'mask']
  return session.run(['filled'], {'image': image, 'mask': mask})[0]


def check(made, trained, sizes, atol=1e-4):
  predictor = Predictor(trained.inference, trained.variables, trained.constants)
  for size in sizes:
    image, mask = pictures(*size)
    want = predictor(image * (1 - mask), mask, np.arange(len(image)))
    image[mask[..., 0] > 0] = np.nan  # whatever is in a hole
    got = run(made, image, mask)
    np.testing.assert_allclose(got, want, atol=atol)
    np.testing.assert_array_equal(got[mask[..., 0] == 0], image[mask[..., 0] == 0])
    assert got[mask[..., 0] > 0].std() > 0.01


SIZES = {  # of the file, and of pictures
  'glcic': (None, [(1, 32, 48), (2, 40, 32), (1, 64, 64)]),
  'mesff': ((64, 96), [(2, 64, 96)]),
  'migan': (None, [(1, 64, 64)]),
  'lama': ((64, 96), [(2, 64, 96)]),
}


@pytest.mark.parametrize('system', SIZES)
def test_small_systems(system):
  size, sizes = SIZES[system]
  trained = toy(system)
  check(onnx_format.model(function.build(trained), size=size), trained, sizes)


def test_a_file_says_what_it_is(tmp_path):
  path = tmp_path / 'new' / 'toy.onnx'
  exportable = function.build(toy('glcic'))
  card = onnx_format.write(exportable, path, size=(32, 40), batch=3)
  made = onnx.load(path)
  assert card == onnx_format.read_card(made)
  stated = json.loads(json.dumps(exportable.card))
  assert {name: card[name] for name in stated} == stated
  assert card['shape'] == ['3', '32', '40'] and card['opset'] == made.opset_import[0].version
  shape = lambda x: [d.dim_value or d.dim_param for d in x.type.tensor_type.shape.dim]
  assert [shape(x) for x in (*made.graph.input, *made.graph.output)] == [
    [3, 32, 40, 3],
    [3, 32, 40, 1],
    [3, 32, 40, 3],
  ]
  onnx_format.write(exportable, path)
  assert shape(onnx.load(path).graph.input[1]) == ['batch', 'height', 'width', 1]


def test_what_cannot_be_exported_is_said():
  exportable = function.build(toy('glcic'))
  with pytest.raises(function.ExportError, match='multiples of'):
    onnx_format.model(exportable, size=(33, 40))
  by_size = lambda *a: a[2] if a[2].shape[1] > 100 else 1 - a[2]
  other = lambda **options: dataclasses.replace(
    exportable, inference=dataclasses.replace(exportable.inference, **options)
  )
  with pytest.raises(function.ExportError, match=r'any size.* --size 512'):
    onnx_format.model(other(output=by_size))
  strange = lambda *a: jax.lax.bessel_i0e(a[2])
  with pytest.raises(function.ExportError, match=r'operation bessel_i0e.*StableHLO'):
    onnx_format.model(other(output=strange), size=(32, 32))
  half = {**exportable.card, 'config': {'dtype': 'bfloat16'}}
  with pytest.raises(function.ExportError, match='computes in bfloat16'):
    onnx_format.model(dataclasses.replace(exportable, card=half), size=(32, 32))


@pytest.mark.slow
@pytest.mark.parametrize('size', [(1, 144, 144), (2, 192, 256), (1, 512, 512)])
def test_the_box(size):
  """Its own weights, against what a user gets from `jaxinpaint.load`."""
  made = onnx_format.model(function.build(load('mesff/box')), size=size[1:])
  image, mask = pictures(*size)
  inpaint = jaxinpaint.load('mesff/box')
  want = np.stack([inpaint(*pair) for pair in zip(image, mask[..., 0], strict=True)])
  np.testing.assert_allclose(run(made, image, mask), want, atol=1e-4)


def published(system, case, size):
  """A system in its published widths, with the weights of a reference output."""
  config = systems.default_config(system)
  if system == 'migan':
    config.model.update(size=size, form='merged')
  inference = systems.inference(config)
  (reference,) = (c for c in goldens.all_cases() if c.name == case)
  entries = systems.module(system, 'published').entries(config.model)
  entries = [e for e in entries if e.network == 'generator']
  tree = mapping.convert(reference.state(), entries)
  variables, constants = Variables(tree['params'], tree['stats']), inference.load_constants()
  return Trained(pathlib.Path('x.safetensors'), None, config, inference, variables, constants, {})


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize(
  ('system', 'case', 'size'),
  [
    ('migan', 'migan_generator', 256),
    ('migan', 'migan_generator_512', 512),
    ('lama', 'lama_big_generator', 256),
    ('lama', 'lama_big_generator', 512),
  ],
)
def test_published_widths(system, case, size):
  """A photograph is filled as the Predictor fills it."""
  trained = published(system, case, size)
  made = onnx_format.model(function.build(trained), size=(size, size))
  image = data.astronaut()[None, :: 512 // size, :: 512 // size] / np.float32(255)
  _, mask = pictures(1, size, size)
  predictor = Predictor(trained.inference, trained.variables, trained.constants)
  want = predictor(image * (1 - mask), mask, np.arange(1))
  assert want[mask[..., 0] > 0].std() > 0.01
  got = run(made, image, mask)
  np.testing.assert_allclose(got, want, atol=1e-4)
  np.testing.assert_array_equal(got[mask[..., 0] == 0], image[mask[..., 0] == 0])
