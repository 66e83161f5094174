"""Trains the same few steps on whatever devices there are; a module of the tests, and a program.

python meshes.py OUT.npz SYSTEM '{"data": 2}' STEPS COORDINATOR NUM_PROCESSES PROCESS_ID
python meshes.py late SECONDS COORDINATOR NUM_PROCESSES PROCESS_ID
"""

import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint import systems
from jaxinpaint.runtime import distributed
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import preparation, sharding

# What may differ beside rounding: sums in another order, relative to an array's way so far.
RELATIVE = 1e-3
# Each shaken run is a draw of what rounding can do; twice the largest of them is allowed.
# Parameters are moved by eight rounding errors, not by one: a pre-activation that a sum in another
# order moves across zero turns a derivative, of |x| or of a ReLU, or chooses another patch. All
# arrays before it differ by a jump then, however small the difference was. (Seen of one ReLU of the
# context encoder: on 2 x 4 devices deconv1 and all before it 1e-5 from one device, deconv2 and all
# behind it 1e-8. In float64 both meshes are within 3e-16.) One rounding error in three draws missed
# such places; eight of them in eight draws move each across zero in half of the draws.
SHAKEN = 8
SHAKE = 8 * 2**-23
DRAWS = 2
# CSA's L1 weighs 100. At 1e-2 runs on one device that differ by rounding part: one kernel by 0.04
# to 0.5 after three steps, in which it moved by 0.03. At 1e-4 no parameter differs by more than
# 0.003 after six.
RATES = {'csa': 1e-4}
MASKS = {'context_encoder': 'center:0.25'}  # the only holes that it fills


def small(system, **mesh):
  """A narrow system at 64 px, batch 8, by plain gradient descent.

  Adam divides gradients by their size and so makes of a rounding difference of a gradient near zero
  one of a whole step; with SGD a difference stays what it is.
  """
  config = config_lib.quicktest(config_lib.base(system))
  with config.unlocked():
    for name in systems.make_recipe(config).optimizers:
      config.optimizers[name] = dict(name='sgd', learning_rate=RATES.get(system, 1e-2))
  config.data.masks = MASKS.get(system, config.data.masks)
  if system == 'mesff':
    config.model.update(dict(width=4, blocks=1, attention_size=16, attention_hidden=4))
    config.loss.update(dict(adversarial=0.1, perceptual=0.0, style=0.0, discriminator_width=4))
    config.training.steps = 5
  averaged = systems.make_recipe(config).networks[:1]
  config.training.update(
    dict(ema_decay=0.5, ema_networks=averaged, sample_every=0, evaluate_every=0, log_every=1)
  )
  config.training.mesh.update(mesh)
  config.checkpoint.update(dict(every=1000, best=''))
  return config


def train(config, workdir, steps=5):
  """[({term: number}, {path: array})]: before training, then after each step."""
  return train_often(config, workdir, steps, shaken=0)[0]


def train_often(config, workdir, steps=5, shaken=SHAKEN):
  """The history of `train`, and as many more with other roundings.

  These begin with every parameter moved by `SHAKE` of its size, up or down.
  """
  run = preparation.prepare(config, pathlib.Path(workdir))
  batches = [sharding.to_devices(next(run.batches), run.mesh) for _ in range(steps)]
  run.batches.close()
  run.checkpoints.close()
  histories = []
  for draw in range(1 + shaken):
    state = jax.tree.map(jnp.copy, run.state)  # a step takes its state's memory
    if draw:
      rng = np.random.default_rng(draw)
      shake = lambda x, rng=rng: x * (1 + SHAKE * rng.choice([-1, 1], x.shape)).astype(x.dtype)
      state = state.replace(params=jax.tree.map(shake, state.params))
    histories.append([({}, arrays_of(state))])
    for i, batch in enumerate(batches):
      state, metrics = run.train_step(state, run.constants, batch, run.rng, run.recipe.plan(i))
      histories[-1].append(({k: float(v) for k, v in metrics.items()}, arrays_of(state)))
  return histories


def arrays_of(state):
  """{path: float array} of parameters, statistics and averages."""

  def whole(x):
    if x.is_fully_replicated:
      return np.asarray(x.addressable_data(0))
    if not x.is_fully_addressable:
      from jax.experimental import multihost_utils

      return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)

  tree = {'params': state.params, 'stats': state.stats, 'ema': state.ema}
  found = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(p): whole(x).astype(np.float64) for p, x in found}


def compare(one, shaken, many):
  """How a run on many devices differs from one device's, measured by what rounding makes of it.

  A narrow network with batch norm, or a critic near balance, magnifies rounding from step to step;
  by how much, `shaken` tells, the same runs on one device with other roundings. What is allowed
  grows with it, so that the first steps are held to 1e-7 or so.

  Args:
    one: of `train`, on one device.
    shaken: the others of `train_often`, on one device.
    many: of `train`.

  Returns:
    ({what: number}, [complaints]): the largest difference of an array after the
    'first' step, after any of a 'parameter' and of an 'array', of a 'term' relative to its size;
    'rounding' of a parameter between `one` and one of `shaken`; 'share' of what is allowed.
  """
  found = dict.fromkeys(('first', 'parameter', 'array', 'term', 'rounding', 'share'), 0.0)
  complaints = []
  start, noise, wobble = one[0][1], {}, 0.0
  for step, ((terms, arrays), (other_terms, other), *moved) in enumerate(
    zip(one, many, *shaken, strict=True)
  ):
    assert arrays.keys() == other.keys() and terms.keys() == other_terms.keys()
    for path, x in arrays.items():
      noise[path] = max([noise.get(path, 0.0), *(_largest(x - m[path]) for _, m in moved)])
      allowed = DRAWS * noise[path] + RELATIVE * _largest(x - start[path]) + 1e-9
      is_ = _largest(x - other[path])
      found['array'] = max(found['array'], is_)
      if step == 1:
        found['first'] = max(found['first'], is_)
      if path.startswith("['params']"):
        found['parameter'] = max(found['parameter'], is_)
        found['rounding'] = max(found['rounding'], noise[path])
      found['share'] = max(found['share'], is_ / allowed)
      if not is_ <= allowed:
        complaints.append(f'step {step}: {path} differs by {is_:.2g}, allowed {allowed:.2g}')
    size = lambda name, terms=terms: abs(terms[name]) + 1e-3
    wobble = max([wobble, *(abs(terms[k] - m[k]) / size(k) for m, _ in moved for k in terms)])
    for name, value in terms.items():
      is_ = abs(value - other_terms[name]) / size(name)
      found['term'] = max(found['term'], is_)
      if not is_ <= 1e-4 + DRAWS * wobble:
        complaints.append(f'step {step}: {name} is {other_terms[name]} instead of {value}')
  return found, complaints


def _largest(x):
  return float(np.abs(x).max(initial=0.0))


def save(path, history):
  flat = {}
  for i, (terms, arrays) in enumerate(history):
    flat |= {f'{i}|term|{k}': v for k, v in terms.items()}
    flat |= {f'{i}|array|{k}': v for k, v in arrays.items()}
  np.savez(path, **flat)


def load(path):
  with np.load(path) as stored:
    history = []
    for key in stored:
      step, kind, name = key.split('|', 2)
      while len(history) <= int(step):
        history.append(({}, {}))
      value = stored[key]
      history[int(step)][kind == 'array'][name] = value if kind == 'array' else float(value)
  return history


def late(index, seconds):
  """Process 1 comes so much later to the first sum over the mesh than the others."""
  mesh = sharding.make_mesh(data=2, fsdp=2)
  distributed.announce(mesh)
  batch = sharding.to_devices({'x': np.ones(len(sharding.local_rows(8, mesh)))}, mesh)
  time.sleep(seconds if index == 1 else 0)
  assert float(jax.jit(lambda x: x.sum())(batch['x'])) == 8


if __name__ == '__main__':
  *arguments, coordinator, count, index = sys.argv[1:]
  distributed.initialize(coordinator, int(count), int(index))
  if arguments[0] == 'late':
    late(int(index), float(arguments[1]))
  else:
    out, system, mesh, steps = arguments
    trained = train(small(system, **json.loads(mesh)), f'{out}.run', int(steps))
    if index == '0':
      save(out, trained)
