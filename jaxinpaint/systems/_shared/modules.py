"""Flax modules as the networks of a recipe: how they are initialised and run.

`networks` is always {name: module}; the name is the key of the network's variables.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinpaint.recipe import Batch, Inference, Init, Pictures, Stats, Variables

Networks = Mapping[str, nn.Module]
Shape = tuple[int, ...]
T = TypeVar('T')
Arguments = Callable[[int, int], Mapping[str, tuple[Shape, ...]]]

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}  # config.dtype: of the computation


def initializer(
  networks: Networks,
  arguments: Arguments,
  keys: Callable[[jax.Array, int], Any] = jax.random.split,
) -> Init:
  """`Recipe.init` or `Inference.init` of these networks.

  A network's initial values depend on its place in `networks`, not on the networks after it. So if
  the critics come last, a recipe's other networks start with the same values as in its `inference`.

  Args:
    networks: the networks to initialise.
    arguments: (height, width) of a batch -> {network: shapes of its arguments, without the batch};
      may contain other networks, too.
    keys: (key, count) -> one key for each network.
  """

  def init(rng: jax.Array, batch: Batch) -> Variables:
    height, width = batch['image'].shape[1:3]
    shapes = arguments(height, width)
    params, stats = {}, {}
    for name, key in zip(networks, keys(rng, len(networks)), strict=True):
      zeros = [jnp.zeros((1, *shape)) for shape in shapes[name]]
      collections = dict(networks[name].init(key, *zeros))
      params[name] = collections.pop('params')
      if collections:
        stats[name] = collections
    return Variables(params, stats)

  return init


def generator_arguments(height: int, width: int) -> dict[str, tuple[Shape, ...]]:
  """`arguments` of `initializer` for a 'generator' that is called with (image, mask)."""
  return {'generator': ((height, width, 3), (height, width, 1))}


def judged_arguments(local: int, whole: int) -> Arguments:
  """As `generator_arguments`, with a discriminator of (local part, whole image) of these sides."""
  judged = (local, local, 3), (whole, whole, 3)
  return lambda height, width: generator_arguments(height, width) | {'discriminator': judged}


def one_generator(
  generator: nn.Module,
  *,
  multiple: int,
  min_side: int,
  pictures: Pictures | None = None,
  **others: Any,
) -> Inference:
  """How a system is run that needs its generator alone.

  Args:
    generator: called with (image, mask) it returns {'out': f32[B,H,W,3] in [0,1]}.
    multiple: image sides must be a multiple of it.
    min_side: the shortest side that the generator accepts.
    pictures: of `Inference`.
    **others: further fields of it.
  """
  networks = {'generator': generator}

  def output(variables, constants, image, mask, rng, /, **inputs):
    return run(networks, 'generator', variables, image, mask)['out']

  return Inference(
    networks=('generator',),
    init=initializer(networks, generator_arguments),
    output=output,
    multiple=multiple,
    min_side=min_side,
    pictures=pictures,
    **others,
  )


def run(networks: Networks, name: str, variables: Variables, *args: Any, **settings: Any) -> Any:
  """What a network returns when it is not trained: statistics are used and not changed."""
  return networks[name].apply(variables.of(name), *args, **settings)


def train_pass(
  networks: Networks, name: str, variables: Variables, *args: Any, **settings: Any
) -> tuple[Any, Stats]:
  """What a network returns in training, and {name: the collections that the pass changed}."""
  own = list(variables.stats.get(name, {}))
  outputs, changed = networks[name].apply(
    variables.of(name), *args, train=True, mutable=own, **settings
  )
  return outputs, {name: changed} if changed else {}


def only_of_known(outputs: T, mask: jax.Array) -> T:
  """The same numbers; those of pictures without a known pixel have no gradient.

  Such a picture says nothing, and where a batch has no other, the gradient of batch norms of a
  constant is without bound.

  Args:
    outputs: a tree of f32[B,h,w,C].
    mask: f32[B,H,W,1], 1 = hole.
  """
  known = (mask == 0).any((1, 2, 3), keepdims=True)
  return jax.tree.map(lambda x: jnp.where(known, x, jax.lax.stop_gradient(x)), outputs)
