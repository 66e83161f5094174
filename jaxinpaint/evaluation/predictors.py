"""What can be a row of the tables: a function, a system with its weights, or files.

A row is a predictor or stored outputs. The simplest predictor is a function of three arrays,

  (image f32[B,H,W,3] in [0,1], 0 in the hole, mask f32[B,H,W,1] 1 = hole, ids i32[B]) ->
  f32[B,H,W,3], the completed image, equal to the image wherever mask is 0,

where ids are the numbers of the images in their set. Attributes say what else a row can do; all are
optional:

  kind         'system', 'fill' or 'files'; default 'system', 'fill' for the classical fills
  output       (image, mask, ids, sample) -> f32[B,H,W,3]: the networks' whole output, before the
               known pixels are pasted in. Without it, the completed image is measured for both.
  samples      True: `output`, or the predictor itself, takes the number of a sample as fourth
               argument, and completes the image differently for each
  load         (index, bin) -> uint8[H,W,3]: an output that exists already. A row with `load` is
               never called.
  refuses      (mask [H,W]) -> why the row cannot fill this hole, '' where it can
  fingerprint  () -> str that changes with everything the outputs depend on. An interrupted
               evaluation is resumed only if every row has a fingerprint and none has changed.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxinpaint.evaluation import classical

Predictor = Callable[..., np.ndarray]


def kind_of(predictor: Any) -> str:
  """'system', 'fill' or 'files'."""
  if _is_fill(predictor):
    return 'fill'
  return getattr(predictor, 'kind', 'files' if is_stored(predictor) else 'system')


def is_stored(predictor: Any) -> bool:
  """Whether its outputs exist already."""
  return hasattr(predictor, 'load')


def has_raw(predictor: Any) -> bool:
  """Whether it also returns the whole output of its networks."""
  return hasattr(predictor, 'output')


def has_samples(predictor: Any) -> bool:
  """Whether it returns several completions of one image."""
  return bool(getattr(predictor, 'samples', False))


def refuses(predictor: Any, mask: np.ndarray) -> str:
  """Why it cannot fill a hole, mask [H,W] with 1 = hole; '': it can."""
  return predictor.refuses(mask) if hasattr(predictor, 'refuses') else ''


def call(
  predictor: Any, image: np.ndarray, mask: np.ndarray, ids: np.ndarray, sample: int = 0
) -> np.ndarray:
  """f32[B,H,W,3]: the row's whole output if it has one, else the completed image."""
  function = predictor.output if has_raw(predictor) else predictor
  more = (sample,) if has_samples(predictor) else ()
  return np.asarray(function(image, mask, ids, *more), np.float32)


def fingerprints(predictors: Mapping[str, Any]) -> dict[str, str] | None:
  """{name: what its outputs depend on}; None if one row has no fingerprint."""
  fingerprints = {}
  for name, predictor in predictors.items():
    if _is_fill(predictor):
      fingerprints[name] = f'{name}: {_source(predictor)}'
    elif hasattr(predictor, 'fingerprint'):
      fingerprints[name] = predictor.fingerprint()
    else:
      return None
  return fingerprints


def _is_fill(predictor: Any) -> bool:
  return any(predictor is fill.function for fill in classical.FILLS.values())


def _source(function: Any) -> str:
  return getattr(function, '__qualname__', None) or inspect.getmodule(function).__name__
