"""The systems that a server offers, by name, loaded at their first use and kept."""

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Mapping

import jax
from absl import logging

from jaxinpaint.inference import inpainter as inpainter_lib
from jaxinpaint.inference import strategies
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.predictor import Size
from jaxinpaint.serving.limits import Limits

# Of a compilation whose like was not met yet: the box network on two cores of a server.
FIRST_ESTIMATE = 6.0
_COMPILED = '/jax/core/compile/backend_compile_duration'

Load = Callable[[str | os.PathLike], Inpainter]


class UnknownModel(ValueError):
  """There is no model of this name; the message lists those that there are."""


class ModelFault(Exception):
  """A model cannot be loaded; the message is for whoever asked, without paths of the server."""


@dataclasses.dataclass
class Model:
  """One system with its weights.

  Attributes:
    name: in requests.
    inpainter: None until the first use.
    compile_seconds: of the last compilation.
  """

  name: str
  inpainter: Inpainter | None = None
  compile_seconds: float = FIRST_ESTIMATE


class Models:
  """The models of a server; all but `names`, `default` and `loaded` is the worker's alone.

  Args:
    places: {name: a path or name of weights, as `jaxinpaint.load`}; the first one is the default.
    limits: of the server.
    load: path -> inpainter, for tests.
  """

  def __init__(
    self, places: Mapping[str, str | os.PathLike], limits: Limits, load: Load | None = None
  ):
    self._places, self._limits = dict(places), limits
    self._load = load or (lambda path: inpainter_lib.load(path))
    self._models = {name: Model(name) for name in self._places}
    self._compiled: dict[tuple[str, tuple[int, int]], None] = {}  # in the order of their use
    self.compilations, self.compile_seconds = 0, 0.0

  @property
  def names(self) -> tuple[str, ...]:
    """Of all models."""
    return tuple(self._models)

  @property
  def default(self) -> str:
    """The name of the model that is used where a request names none."""
    return self.names[0]

  def loaded(self, name: str) -> bool:
    """Whether the model has been used."""
    return self._models[name].inpainter is not None

  def check(self, name: str | None) -> str:
    """The name of a model that a request named; None: the default.

    Raises:
      UnknownModel: there is none.
    """
    if name is None:
      return self.default
    if name not in self._models:
      raise UnknownModel(f'there is no model {name!r}; there are: {", ".join(self.names)}')
    return name

  def get(self, name: str) -> Inpainter:
    """The model's inpainter, loaded where it is not yet.

    Raises:
      ModelFault: its weights cannot be loaded, or the server's `pad_to` does not suit it; the log
        says why.
    """
    model = self._models[name]
    if model.inpainter is None:
      try:
        inpainter = self._load(self._places[name])
        inpainter.predictor.padded_to(self._limits.pad_to)
      except (ValueError, OSError, MemoryError) as error:
        logging.error('the model %s cannot be loaded: %s', name, error)
        raise ModelFault(
          f"the model {name} cannot be loaded; the server's log says why: use another one"
        ) from error
      model.inpainter = inpainter
    return model.inpainter

  def painter(self, name: str, *, max_side: int | None, blend: str, exact_size: bool) -> Inpainter:
    """An inpainter with a request's options; weights and programs are shared.

    Raises:
      InpaintError: an option is out of range.
    """
    base = self.get(name)
    most = self._limits.max_side
    if max_side is not None and most is not None and max_side > most:
      raise InpaintError(f'max_side {max_side} must be at most {most} on this server')
    strategy = 'original' if max_side is None and most is None else 'auto'
    predictor = base.predictor if exact_size else base.predictor.padded_to(self._limits.pad_to)
    limit = strategies.LIMIT if most is None else most
    how = dict(max_side=max_side, blend=blend, strategy=strategy, default_limit=limit)
    return Inpainter(predictor, name=base.name, batch_size=1, **how)

  def compile_estimate(self, name: str, sizes: Collection[Size]) -> float | None:
    """Seconds that padded sizes will take to compile; None: their programs are there."""
    new = sum((name, size) not in self._compiled for size in sizes)
    return new * self._models[name].compile_seconds or None

  def watch(self, name: str, sizes: Collection[Size], compiled: Callable[[], object]) -> '_Watch':
    """Around a completion: notes what is compiled, and calls `compiled` when it is."""
    return _Watch(self, name, sizes, compiled)

  def note_use(self, name: str, size: Size) -> None:
    """Marks a program as there; beyond `limits.sizes`, all are dropped but this one's source."""
    self._compiled.pop((name, size), None)
    self._compiled[name, size] = None
    if len(self._compiled) > self._limits.sizes:
      # jax drops all or none; what is kept on disk is read again in a part of the time.
      jax.clear_caches()
      self._compiled.clear()


class _Watch:
  def __init__(self, models: Models, name: str, sizes: Collection[Size], compiled):
    self._models, self._name, self._sizes, self._tell = models, name, sizes, compiled
    self._begun = 0.0
    self._new = models.compile_estimate(name, sizes) is not None

  def __enter__(self) -> '_Watch':
    self._begun = time.monotonic()
    jax.monitoring.register_event_duration_secs_listener(self._heard)
    return self

  def __exit__(self, kind, *_) -> None:
    jax.monitoring.unregister_event_duration_listener(self._heard)
    if kind is None:
      for size in self._sizes:
        self._models.note_use(self._name, size)

  def _heard(self, event: str, seconds: float, **_) -> None:
    if event != _COMPILED or not self._new:
      return
    self._models.compilations += 1
    self._models.compile_seconds += seconds
    # With tracing: what a person waits for.
    self._models._models[self._name].compile_seconds = time.monotonic() - self._begun
    self._tell()
