"""Initial values of networks without compiling their draws, which takes longer than their use.

They are traced, and numpy computes what the values depend on: a few plain operations, and jax's own
random bits (Threefry; Salmon et al., SC 2011). tests/systems/test_initial_values.py compares them
with jax's.

  variables = initial.values(lambda key: generator.init(key, image, mask), seed=1)
"""

import jax
import numpy as np
import scipy.special

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


@np.errstate(over='ignore')  # of scalars; that of arrays is silent
def threefry(key, high, low):
  """Two words for each pair of counters; `key`: uint32[2]."""
  keys = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
  x, y = high + keys[0], low + keys[1]
  for i in range(5):
    for r in ROTATIONS[i % 2]:
      x = x + y
      y = (y << np.uint32(r)) | (y >> np.uint32(32 - r))
      y = x ^ y
    x, y = x + keys[(i + 1) % 3], y + keys[(i + 2) % 3] + np.uint32(i + 1)
  return x, y


def words(key, shape):
  count = np.arange(np.prod(shape, dtype=int), dtype=np.uint32).reshape(shape)
  return threefry(key, np.zeros_like(count), count)


def broadcast(x, shape, broadcast_dimensions):
  sides = np.ones(len(shape), int)
  sides[list(broadcast_dimensions)] = x.shape
  return np.broadcast_to(x.reshape(sides), shape)


# {primitive of jax: its arguments and parameters -> its result}; a key is uint32[..., 2].
OPERATIONS = {
  'random_split': lambda key, shape: np.stack(words(key, shape), -1),
  'random_fold_in': lambda key, n: np.stack(threefry(key, np.uint32(0), np.uint32(n)), -1),
  'random_bits': lambda key, shape, bit_width: np.bitwise_xor(*words(key, shape)),
  'slice': lambda x, start_indices, limit_indices, strides: x[
    tuple(map(slice, start_indices, limit_indices, strides or [None] * x.ndim))
  ],
  'unstack': lambda x, axis: list(np.moveaxis(x, axis, 0)),
  'squeeze': lambda x, dimensions: np.squeeze(x, dimensions),
  'reshape': lambda x, new_sizes, dimensions: x.reshape(new_sizes),
  'broadcast_in_dim': lambda x, shape, broadcast_dimensions: broadcast(
    x, shape, broadcast_dimensions
  ),
  'convert_element_type': lambda x, new_dtype: x.astype(new_dtype),
  'bitcast_convert_type': lambda x, new_dtype: x.view(new_dtype),
  'stop_gradient': lambda x: x,
  'reduce_sum': lambda x, axes: x.sum(axes),
  'sqrt': np.sqrt,
  'erf': scipy.special.erf,
  'erf_inv': scipy.special.erfinv,
  'add': np.add,
  'sub': np.subtract,
  'mul': np.multiply,
  'div': np.divide,
  'max': np.maximum,
  'min': np.minimum,
  'or': np.bitwise_or,
  'nextafter': np.nextafter,
  'shift_right_logical': np.right_shift,
}
# Parameters that say where and how fast, not what.
IGNORED = {'sharding', 'out_sharding', 'accuracy', 'weak_type', 'out_dtype'}


def evaluate(closed, *arguments):
  """The results of a traced function; of its equations, those that the results depend on."""
  jaxpr = closed.jaxpr
  known = dict(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
  known |= dict(zip(jaxpr.invars, arguments, strict=True))
  source = {v: equation for equation in jaxpr.eqns for v in equation.outvars}

  def value(variable):
    if hasattr(variable, 'val'):
      return np.asarray(variable.val, variable.aval.dtype)
    if variable not in known:
      equation = source[variable]
      inputs = [value(v) for v in equation.invars]
      if 'jaxpr' in equation.params:
        results = evaluate(equation.params['jaxpr'], *inputs)
      else:
        operation = OPERATIONS[equation.primitive.name]
        params = {k: v for k, v in equation.params.items() if k not in IGNORED}
        results = operation(*inputs, **({} if isinstance(operation, np.ufunc) else params))
      if not equation.primitive.multiple_results:
        results = [results]
      known.update(zip(equation.outvars, results, strict=True))
    return known[variable]

  return [value(v) for v in jaxpr.outvars]


def values(function, seed=0):
  """What `function(jax.random.key(seed))` returns, as numpy computes it."""
  traced, shapes = jax.make_jaxpr(function, return_shape=True)(jax.random.key(seed))
  leaves = evaluate(traced, np.array([0, seed], np.uint32))
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)
