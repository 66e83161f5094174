"""A system as a predictor of the evaluation: compiled once, at any size, on all local devices."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinpaint import arrays
from jaxinpaint.data import inputs
from jaxinpaint.recipe import Constants, Inference, Variables


class Model:
  """`Inference.output`, compiled once per shape, for whatever weights it is bound to.

  A batch is split over the local devices, each of which has the weights whole; weights are brought
  there from any sharding. A batch that the devices do not divide is filled up with copies of its
  last row, which are cut off again.

  A system that samples is run image by image (vmap), each with random numbers of (seed, number of
  the image, number of the sample), so that an image's output does not depend on its batch.

  Args:
    inference: of the system.
    seed: of the random numbers of systems that sample.
    devices: default all of this process.
  """

  def __init__(self, inference: Inference, seed: int = 0, devices: Sequence[Any] | None = None):
    """See the class."""
    self._inference = inference
    devices = list(jax.local_devices() if devices is None else devices)
    mesh = Mesh(np.array(devices), ('batch',))
    self._count = len(devices)
    self._split = NamedSharding(mesh, PartitionSpec('batch'))
    self._whole = NamedSharding(mesh, PartitionSpec())
    alone = _one_by_one if inference.samples else _whole
    self._output = jax.jit(alone(inference.output))
    self._pictures = jax.jit(_whole(inference.pictures)) if inference.pictures else None
    self._rng = jax.device_put(jax.random.key(seed), self._whole)
    self._seed = seed

  def bind(self, variables: Variables, constants: Constants) -> 'Bound':
    """A predictor with these weights; sides are padded to what the networks take and cropped back.

    On several processes all must call this where arrays are sharded across processes.
    """
    return Bound(self, self._weights(variables, constants))

  def bind_pictures(
    self, variables: Variables, constants: Constants
  ) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """As `bind`, for `Inference.pictures`: (image, mask) -> {name: f32[B,H,W,1 or 3]}."""
    weights = self._weights(variables, constants)

    def pictures(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
      ids = np.arange(len(image), dtype=np.int32)
      return self.run(self._pictures, weights, image, mask, ids, 0) if self._pictures else {}

    return pictures

  @property
  def samples(self) -> bool:
    """Whether the system draws random numbers."""
    return self._inference.samples

  def output(
    self, weights: Any, image: np.ndarray, mask: np.ndarray, ids: np.ndarray, sample: int
  ) -> np.ndarray:
    """f32[B,H,W,3], the networks' whole output."""
    return self.run(self._output, weights, image, mask, ids, sample)

  def run(
    self,
    function: Callable,
    weights: Any,
    image: np.ndarray,
    mask: np.ndarray,
    ids: np.ndarray,
    sample: int,
  ) -> Any:
    """What a compiled function makes of a batch, on the host, without any padding."""
    n, height, width = image.shape[:3]
    sides = (self._inference.multiple, self._inference.min_side)
    rows = np.minimum(np.arange(-(-n // self._count) * self._count), n - 1)
    padded = [
      np.asarray(arrays.pad_to_multiple(np.asarray(x)[rows], *sides)) for x in (image, mask)
    ]
    further = inputs.compute(self._inference.inputs, *padded)
    ids = np.asarray(ids, np.int32)[rows]
    *padded, ids, further = jax.device_put((*padded, ids, further), self._split)
    output = function(weights, *padded, self._rng, ids, np.int32(sample), further)
    return jax.tree.map(lambda x: np.asarray(x)[:n, :height, :width], output)

  def fingerprint(self, weights: Any) -> str:
    """SHA-256 of the weights, with whatever else an output depends on."""
    digest = hashlib.sha256(f'{self._inference.inputs} {self._seed}'.encode())
    variables, constants = weights
    for path, leaf in jax.tree_util.tree_leaves_with_path((*variables, constants)):
      leaf = np.asarray(leaf)
      digest.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}'.encode())
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

  def _weights(self, variables: Variables, constants: Constants) -> tuple[Variables, Constants]:
    return self._local((variables.pick(self._inference.networks), dict(constants)))

  def _local(self, tree: Any) -> Any:
    def bring(x: Any) -> Any:
      if isinstance(x, jax.Array) and not x.is_fully_addressable:
        if x.is_fully_replicated:
          x = x.addressable_data(0)
        else:
          from jax.experimental import multihost_utils

          x = multihost_utils.process_allgather(x, tiled=True)
      return jax.device_put(x, self._whole)

    return jax.tree.map(bring, tree)


class Bound:
  """A system with its weights, as `predictors` describes a predictor."""

  kind = 'system'

  def __init__(self, model: Model, weights: Any):
    """See the class."""
    self._model, self._bound = model, weights
    self.samples = model.samples

  def __call__(
    self, image: np.ndarray, mask: np.ndarray, ids: np.ndarray, sample: int = 0
  ) -> np.ndarray:
    """f32[B,H,W,3], the completed images."""
    return np.asarray(np.where(mask > 0, self.output(image, mask, ids, sample), image))

  def output(
    self, image: np.ndarray, mask: np.ndarray, ids: np.ndarray, sample: int = 0
  ) -> np.ndarray:
    """f32[B,H,W,3], the networks' whole output."""
    return self._model.output(self._bound, image, mask, ids, sample)

  def fingerprint(self) -> str:
    """Changes with the weights and the seed."""
    return self._model.fingerprint(self._bound)


def _whole(function: Callable) -> Callable:
  """The function with one key for the batch."""

  def run(weights, image, mask, rng, ids, sample, further):
    return function(*weights, image, mask, rng, **further)

  return run


def _one_by_one(function: Callable) -> Callable:
  """The function with every image alone, and a key of its own."""

  def run(weights, image, mask, rng, ids, sample, further):
    def one(image, mask, index, further):
      key = jax.random.fold_in(jax.random.fold_in(rng, index), sample)
      alone = jax.tree.map(lambda x: x[None], further)
      return jnp.squeeze(function(*weights, image[None], mask[None], key, **alone), 0)

    return jax.vmap(one)(image, mask, ids, further)

  return run
