"""A trained network of another system as a frozen teacher: what its ToRGB layers add by side.

The teacher is a run, a weights file or a name of weights, in config.loss.teacher. Its system must
have `rgb_by_side(config)` in its recipe, which returns a `Teach`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Protocol

import jax
from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.recipe import Constants, Inference, Variables
from jaxinpaint.systems import opening
from jaxinpaint.weights import mapping
from jaxinpaint.weights.store import MissingWeights, StoreError

NAME = 'teacher'  # of the constants


class Teach(Protocol):
  """What a teacher shows."""

  def __call__(
    self, variables: Variables, image: jax.Array, mask: jax.Array, rng: jax.Array, /
  ) -> Mapping[int, jax.Array]:
    """{side: f32[B,side,side,3]}, what the ToRGB of each side adds to the picture in [-1,1].

    Args:
      variables: of the networks of its inference.
      image: f32[B,H,W,3] in [0,1].
      mask: f32[B,H,W,1], 1 = hole.
      rng: key.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A teacher, which is read when it is needed.

  Attributes:
    weights: what `opening.open_weights` takes; '': none are given.
    size: side of the pictures that it completes.
    usual: config of the published teacher, for estimates without weights.
    hint: how to get weights or do without, for messages.
  """

  weights: str
  size: int
  usual: ConfigDict
  hint: str

  def load_constants(self, *, shapes_only: bool = False) -> Constants:
    """{'teacher': its `Variables`}; see `recipe.LoadConstants`.

    Raises:
      FileNotFoundError: there are no such weights.
      ValueError: they cannot be read, its system does not teach, it takes pictures of another side,
        or its weights do not fit it.
    """
    if shapes_only:
      return {NAME: self._inference().shapes()}
    if not self.weights:
      raise FileNotFoundError(f'config.loss.teacher is not set: {self.hint}')
    try:
      opened = _open(self.weights)
    except StoreError as error:
      raise type(error)(f'config.loss.teacher: {error}') from error
    inference = self._inference()
    variables = opened.read(inference.networks)
    if problems := mapping.compare(variables._asdict(), inference.shapes()._asdict()):
      raise ValueError(
        '\n'.join([f'config.loss.teacher {self.weights!r} does not fit:', *problems])
      )
    return {NAME: variables}

  def _inference(self) -> Inference:
    """How the teacher is run; raises ValueError where it cannot teach this student."""
    if not hasattr(self._recipe, 'rgb_by_side'):
      raise ValueError(f'config.loss.teacher: {self._config.system} cannot teach: {self.hint}')
    inference = systems.inference(self._config)
    seen, _ = inference.seen_size(self.size, self.size)
    if seen != self.size:
      raise ValueError(
        f'config.loss.teacher completes pictures of {seen} pixels, its student of {self.size}: '
        f'{self.hint}'
      )
    return inference

  def rgb_by_side(self, constants: Constants, *args: jax.Array) -> Mapping[int, jax.Array]:
    """What the teacher shows; arguments are those of `Teach` after the variables."""
    return self._recipe.rgb_by_side(self._config)(constants[NAME], *args)

  @property
  def _config(self) -> ConfigDict:
    if not self.weights:
      return self.usual
    try:
      return _open(self.weights).config
    except MissingWeights:  # `load_constants` says so; an estimate does without
      return self.usual

  @property
  def _recipe(self) -> ModuleType:
    return systems.module(self._config.system, 'recipe')


@functools.lru_cache(maxsize=1)
def _open(weights: str) -> opening.Opened:
  return opening.open_weights(weights)
