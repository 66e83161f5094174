"""A system as a predictor of the evaluation: compiled once, at any size."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxinpaint import arrays
from jaxinpaint.data import inputs
from jaxinpaint.training.recipe import Recipe


class Model:
  """`recipe.predict`, compiled once per shape, for whatever weights it is bound to.

  Evaluation runs on one device of each process; weights are brought there from any sharding.

  Args:
    recipe: of the system.
    seed: of the random numbers of systems that sample.
  """

  def __init__(self, recipe: Recipe, seed: int = 0):
    """See the class."""
    self._recipe = recipe
    self._device = jax.local_devices()[0]
    self._predict = jax.jit(recipe.predict)
    self._pictures = jax.jit(recipe.pictures) if recipe.pictures else None
    self._rng = jax.device_put(jax.random.key(seed), self._device)

  def bind(
    self, params: Mapping[str, Any], stats: Mapping[str, Any], constants: Mapping[str, Any]
  ) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """A predictor with these weights; sides are padded to what the networks take and cropped back.

    On several processes all must call this where arrays are sharded across processes.
    """
    weights = self._weights(params, stats, constants)

    def predict(image: np.ndarray, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
      return self._run(self._predict, weights, image, mask)

    return predict

  def bind_pictures(
    self, params: Mapping[str, Any], stats: Mapping[str, Any], constants: Mapping[str, Any]
  ) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """As `bind`, for `recipe.pictures`: (image, mask) -> {name: f32[B,H,W,1 or 3]}."""
    weights = self._weights(params, stats, constants)

    def pictures(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
      return self._run(self._pictures, weights, image, mask) if self._pictures else {}

    return pictures

  def _weights(self, params: Any, stats: Any, constants: Any) -> tuple[Any, Any, Any]:
    names = self._recipe.predict_networks
    pick = lambda tree: {n: tree[n] for n in names if n in tree}
    return self._local((pick(params), pick(stats), dict(constants)))

  def _run(self, function: Callable, weights: Any, image: np.ndarray, mask: np.ndarray) -> Any:
    height, width = image.shape[1:3]
    sides = (self._recipe.multiple, self._recipe.min_side)
    padded = [np.asarray(arrays.pad_to_multiple(np.asarray(x), *sides)) for x in (image, mask)]
    further = inputs.compute(self._recipe.inputs, *padded)
    with jax.default_device(self._device):
      output = function(*weights, *padded, self._rng, **further)
    return jax.tree.map(lambda x: np.asarray(x)[:, :height, :width], output)

  def _local(self, tree: Any) -> Any:
    def bring(x: Any) -> Any:
      if isinstance(x, jax.Array) and not x.is_fully_addressable:
        if x.is_fully_replicated:
          x = x.addressable_data(0)
        else:
          from jax.experimental import multihost_utils

          x = multihost_utils.process_allgather(x, tiled=True)
      return jax.device_put(x, self._device)

    return jax.tree.map(bring, tree)
