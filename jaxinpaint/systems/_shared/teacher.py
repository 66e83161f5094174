"""A trained network of another system as a frozen teacher: what its ToRGB layers add by side.

The teacher is a weights file of this library, in config.loss.teacher. The system that the file
names must have `rgb_by_side(config)` in its recipe, which returns a `Teach`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Protocol

import jax
from ml_collections import ConfigDict

from jaxinpaint import migrations, systems
from jaxinpaint.recipe import Constants, Variables
from jaxinpaint.weights import mapping, store

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
    file: the weights file; '': none is given.
    size: side of the pictures that it completes.
    usual: config of the published teacher, for estimates without a file.
    hint: how to get a file or do without, for messages.
  """

  file: str
  size: int
  usual: ConfigDict
  hint: str

  def load_constants(self, *, shapes_only: bool = False) -> Constants:
    """{'teacher': its `Variables`}; see `recipe.LoadConstants`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: its system does not teach, it takes pictures of another side, or its weights do
        not fit it.
    """
    if not (shapes_only or self._path):
      given = f'{self.file!r} is no file' if self.file else 'is not set'
      raise FileNotFoundError(f'config.loss.teacher {given}: {self.hint}')
    inference = systems.inference(self._config)
    if not hasattr(self._recipe, 'rgb_by_side'):
      raise ValueError(f'config.loss.teacher: {self._config.system} cannot teach: {self.hint}')
    seen, _ = inference.seen_size(self.size, self.size)
    if seen != self.size:
      raise ValueError(
        f'config.loss.teacher completes pictures of {seen} pixels, its student of {self.size}: '
        f'{self.hint}'
      )
    shapes = inference.shapes()
    if shapes_only:
      return {NAME: shapes}
    variables = _read(self._path)[1].pick(inference.networks)
    if problems := mapping.compare(variables._asdict(), shapes._asdict()):
      raise ValueError('\n'.join([f'config.loss.teacher {self.file!r} does not fit:', *problems]))
    return {NAME: variables}

  def rgb_by_side(self, constants: Constants, *args: jax.Array) -> Mapping[int, jax.Array]:
    """What the teacher shows; arguments are those of `Teach` after the variables."""
    return self._recipe.rgb_by_side(self._config)(constants[NAME], *args)

  @property
  def _path(self) -> pathlib.Path | None:
    path = pathlib.Path(self.file).expanduser()
    return path if path.is_file() else None

  @property
  def _config(self) -> ConfigDict:
    return _read(self._path)[0] if self._path else self.usual

  @property
  def _recipe(self):
    return systems.module(self._config.system, 'recipe')


@functools.lru_cache(maxsize=1)
def _read(path: pathlib.Path) -> tuple[ConfigDict, Variables]:
  stored = store.load(path)
  config = migrations.migrate(stored.config, systems.default_config)
  return config, Variables(stored.params, stored.stats)
