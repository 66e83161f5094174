"""A small batch with edges, which networks one step of a phase moves, and published files."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinpaint import systems
from jaxinpaint.training import state as state_lib
from jaxinpaint.training import step as step_lib
from jaxinpaint.weights import mapping

_spec = importlib.util.spec_from_file_location(
  'torch_bytes', pathlib.Path(__file__).parent.parent / 'weights' / 'torch_bytes.py'
)
torch_bytes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(torch_bytes)


def batch(size=32):
  rng = np.random.default_rng(0)
  mask = np.zeros((2, size, size, 1), np.float32)
  mask[0, 4:20, 4:20] = 1
  canny = (rng.random(mask.shape) < 0.2).astype(np.float32)
  image = rng.random((2, size, size, 3), np.float32)
  return {'image': image, 'mask': mask, 'canny': canny, 'id': np.arange(2)}


def weights(recipe, data):
  """Variables drawn by numpy: compiling `recipe.init` takes longer than all it is for."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    value = rng.standard_normal(x.shape).astype(np.float32)
    if path[-1].key in ('u', 'v'):
      return value / np.linalg.norm(value)
    return value * (0.1 if path[-1].key == 'bias' else np.sqrt(2 / (x.size / x.shape[-1])))

  found = jax.eval_shape(recipe.init, jax.random.key(0), data)
  return jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(draw, found))


def start(recipe, data):
  """(the initial state, the train step), with plain gradient descent everywhere."""
  txs = {name: optax.sgd(1e-3) for name in recipe.optimizers}
  variables = weights(recipe, data)
  opt = {k: txs[k].init(variables.pick(n).params) for k, n in recipe.optimizers.items()}
  state = state_lib.TrainState(jnp.zeros((), jnp.int32), *variables, opt, {})
  return state, step_lib.make_train_step(recipe, txs)


def moved(recipe, state, step, data, number):
  """(names of the networks whose parameters, and whose statistics, step `number` changes, its
  metrics, the state after it)."""
  old = jax.tree.map(np.asarray, (state.params, state.stats))
  state = state.replace(step=jnp.asarray(number, state.step.dtype))
  new, metrics = step(state, {}, data, jax.random.key(1), recipe.plan(number))
  differs = lambda a, b: any(
    (np.asarray(x) != np.asarray(y)).any()
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )
  params = {name for name in old[0] if differs(old[0][name], new.params[name])}
  stats = {name for name in old[1] if differs(old[1][name], new.stats[name])}
  assert bool(metrics['finite']), metrics
  return params, stats, metrics, new


def abstract_batch(size=64):
  shape = lambda channels: jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  return {'image': shape(3), 'mask': shape(1)}


def narrow_format(monkeypatch, system, model):
  """Lets the formats of `system` be those of narrow networks, whose files are small."""
  formats = systems.module(system, 'published').FORMATS
  for name, own in list(formats.items()):
    narrow = dataclasses.replace(own, model={**own.model, **model})
    monkeypatch.setitem(formats, name, narrow)


def write_published(path, init, entries, network, key):
  """A file of torch.save with `network` as published: zeros, but for ones in the biases.

  `key`: of the file's dict under which the state dict is; None: the file is the state dict.
  """
  variables = jax.eval_shape(init, jax.random.key(0), abstract_batch())
  tree = variables.pick((network,))._asdict()
  value = lambda p, x: np.full(x.shape, float(p[-1].key == 'bias'), np.float32)
  tree = jax.tree_util.tree_map_with_path(value, tree)
  state = mapping.export(tree, [e for e in entries if e.network == network])
  if key == 'discriminator':  # an alias that is in the published files
    state['features.0.weight_orig'] = state['conv1.0.weight_orig']
  storages, tensors = {}, {}
  for i, (name, array) in enumerate(state.items()):
    strides = tuple(n // array.itemsize for n in array.strides)
    tensors[name] = torch_bytes.tensor(str(i), array.size, array.shape, strides)
    storages[str(i)] = array.tobytes()
  content = {'iteration': 7, key: tensors} if key else tensors
  return torch_bytes.write_zip(path, torch_bytes.emit(content), storages)
