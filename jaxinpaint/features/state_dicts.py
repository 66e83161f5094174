"""PyTorch's files of frozen networks with batch norms, as variables of flax."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxinpaint.weights import mapping, reader

Variables = dict[str, dict]


def convert(
  state: Mapping[str, np.ndarray],
  entries: Callable[[str], Iterable[mapping.Entry]],
  shapes: Mapping[str, Any],
  ignore: Iterable[str] = (),
) -> Variables:
  """Variables {'params': ..., 'batch_stats': ...}, float32, of a network's state dict.

  Args:
    state: {key: array in PyTorch's layout}.
    entries: network's name -> where every key goes.
    shapes: jax.ShapeDtypeStructs of the variables.
    ignore: regular expressions of keys to leave out.

  Raises:
    mapping.MappingError: it is another network's.
  """
  name = 'network'
  kinds = {'params': shapes['params'], 'stats': {'batch_stats': shapes['batch_stats']}}
  expected = {kind: {name: tree} for kind, tree in kinds.items()}
  tree = mapping.convert(state, entries(name), ignore, expected=expected)
  return {'params': tree['params'][name], **tree['stats'][name]}


def read(
  path: pathlib.Path, what: str, convert: Callable[[Mapping[str, np.ndarray]], Variables]
) -> Variables:
  """What `convert` makes of the state dict in a file that `weights.reader` reads.

  Raises:
    ValueError: the file does not hold `what`.
  """
  try:
    return convert(mapping.flatten(reader.read(path)))
  except mapping.MappingError as error:
    raise ValueError(f'{path} does not hold the weights of {what}: {error}') from error
