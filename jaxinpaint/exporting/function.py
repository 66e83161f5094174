"""The function that is exported: a system with its weights, from image and mask to the filling.

  exportable = function.build(trained.load('mesff/box'))
  filled = exportable.fill(exportable.weights, image, mask)      # f32[B,H,W,3], traced by jax
  exportable.card                                                # the conventions, JSON-able

It fills what `Predictor` fills, with the same numbers: the hole is blanked before the networks see
it, each image of a batch has its own random numbers (of systems that draw any), and known pixels
are pasted. What `Predictor` does on the host is left to the caller: sides are padded to
`multiple` and `min_side` of the card beforehand, and pictures are resized for networks of one side.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint import systems
from jaxinpaint.layers import placement
from jaxinpaint.predictor import Predictor, Size, with_keys
from jaxinpaint.recipe import Constants, Inference, Variables
from jaxinpaint.trained import Trained
from jaxinpaint.weights import names

FORMAT_VERSION = 1
# A mask above it is hole: masks that were drawn, resized or divided by 255 need no preparation.
HOLE_ABOVE = 0.5
INPUTS = {
  'image': {
    'type': 'float32',
    'shape': ['batch', 'height', 'width', 3],
    'range': [0, 1],
    'holds': 'RGB; what it holds inside the hole does not matter',
  },
  'mask': {
    'type': 'float32',
    'shape': ['batch', 'height', 'width', 1],
    'range': [0, 1],
    'holds': f'1 in the hole, 0 elsewhere; above {HOLE_ABOVE} counts as hole',
  },
}
OUTPUTS = {
  'filled': {
    'type': 'float32',
    'shape': ['batch', 'height', 'width', 3],
    'range': [0, 1],
    'holds': 'RGB; equals image to the bit outside of the hole',
  },
}


# What jax raises where a choice depends on a size that is not known yet. A tracer in the place of a
# number is a TypeError, and NotImplementedError is of operations with sizes in their attributes.
_NEEDS_NUMBERS = (jax.errors.InconclusiveDimensionOperation, TypeError, NotImplementedError)


class ExportError(ValueError):
  """A system or a size that cannot be exported so; one sentence says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Exportable:
  """A system with its weights as one pure function.

  Attributes:
    name: of the system and its weights, for messages.
    inference: of the system.
    weights: (variables, constants) of the networks that inference reads, as numpy arrays.
    seed: of the random numbers of systems that draw any; number i of a batch has the same ones as
      image i of `jaxinpaint.load(..., seed=seed)`.
    card: what a file says of itself: system, configuration, conventions, sizes, licence, results;
      JSON-able.
  """

  name: str
  inference: Inference
  weights: tuple[Variables, Constants]
  seed: int
  card: Mapping[str, Any]

  def fill(
    self,
    weights: tuple[Variables, Constants],
    image: jax.Array,
    mask: jax.Array,
    form: placement.Form = 'plain',
  ) -> jax.Array:
    """The filled image; pure, to be traced.

    Args:
      weights: `self.weights`, or tracers in their place.
      image: f32[B,H,W,3] in [0,1], RGB; its values in the hole, NaN too, do not matter. The sides
        are those that `check_size` accepts.
      mask: f32[B,H,W,1], above 0.5 = hole.
      form: of the convolutions, whatever machine traces: 'cpu' is fast in XLA's CPU code, 'plain'
        everywhere else. Both give the same numbers.

    Returns:
      f32[B,H,W,3] in [0,1] that equals `image` to the bit outside of the hole.
    """
    hole = mask > HOLE_ABOVE
    blank = jnp.where(hole, 0.0, image)
    run = with_keys(self.inference.output, self.seed, self.inference.samples)
    numbers = jnp.arange(image.shape[0], dtype=jnp.int32)
    with placement.use(placement.Placement(form=form)):
      output = run(weights, blank, hole.astype(image.dtype), numbers, {}, jnp.int32(0))
    return jnp.where(hole, output, image)

  def shape(self, size: Size | None, batch: int | None) -> tuple[Any, Any, Any]:
    """(B, H, W) of the images: numbers, or symbolic sizes of which sides are multiples.

    Args:
      size: (height, width); None: any that the system takes, or its own (`Inference.side`).
      batch: number of images; None: any.

    Raises:
      ExportError: the system does not take this size.
    """
    inference = self.inference
    if size is None and inference.side:
      size = (inference.side, inference.side)
    if size is not None:
      self.check_size(*size)
    multiple, least = inference.multiple, inference.seen_size(1, 1)[0] // inference.multiple
    rows, columns = size or (f'{multiple}*h', f'{multiple}*w')
    bounds = [] if size or least == 1 else [f'h >= {least}', f'w >= {least}']
    return export.symbolic_shape(f'{batch or "b"}, {rows}, {columns}', constraints=bounds)

  def check_size(self, height: int, width: int) -> None:
    """Raises ExportError unless the function takes images of this size."""
    seen = self.inference.seen_size(height, width)
    if seen == (height, width):
      return
    if self.inference.side:
      raise ExportError(
        f'{self.name} takes images of {seen[0]} x {seen[1]} alone, not of {height} x {width}: '
        'leave the size out, and resize the images'
      )
    raise ExportError(
      f'{self.name} takes sides that are multiples of {self.inference.multiple} and at least '
      f'{self.inference.seen_size(1, 1)[0]}, not {height} x {width}: export {seen[0]} x {seen[1]}, '
      'and pad the images'
    )


@contextlib.contextmanager
def numbers_needed(exportable: Exportable, shape: tuple[Any, Any, Any]) -> Iterator[None]:
  """Around a trace for images of `Exportable.shape`; says which of the sizes has to be given.

  Raises:
    ExportError: the networks choose their operations by a size that is symbolic.
  """
  try:
    yield
  except _NEEDS_NUMBERS as error:
    batch, height, _ = shape
    multiple = exportable.inference.multiple
    if not isinstance(height, int):
      raise ExportError(
        f'{exportable.name} cannot be exported for any size, because its networks choose their '
        f'operations by the size: give one, --size 512 or --size 384x512'
        + (f' (multiples of {multiple})' if multiple > 1 else '')
      ) from error
    if not isinstance(batch, int):
      raise ExportError(
        f'{exportable.name} cannot be exported for any number of images, because its networks '
        'choose their operations by it: give one, as --batch 1'
      ) from error
    raise


def build(trained: Trained, *, seed: int = 0) -> Exportable:
  """The function of a system with its weights, and the card that goes into the file.

  Args:
    trained: of `trained.load`.
    seed: of the random numbers of systems that draw any. They are part of the function: the same
      image has the same completion each time.

  Raises:
    ExportError: the system reads what cannot be computed inside of the function.
  """
  inference = trained.inference
  if inference.inputs:
    raise ExportError(
      f'{trained.name} reads {", ".join(inference.inputs)} beside image and mask, which '
      'scikit-image makes outside of the networks: it cannot be exported as one function; run it '
      'by `jaxinpaint inpaint` or jaxinpaint.load'
    )
  weights = trained.variables.pick(inference.networks), dict(trained.constants)
  predictor = Predictor(inference, *weights, seed=seed)
  card = _card(trained, seed) | {'fingerprint': predictor.fingerprint()}
  return Exportable(trained.name, inference, jax.tree.map(jax.device_get, weights), seed, card)


def conventions(inference: Inference) -> dict[str, Any]:
  """What goes in and comes out, and which sizes: for a file's metadata, JSON-able."""
  sizes = {name: getattr(inference, name) for name in ('multiple', 'side', 'pad_mode')}
  sizes['min_side'] = inference.seen_size(1, 1)[0]  # a multiple, too
  further: dict[str, Any] = {}
  if inference.inputs:
    further['further_inputs'] = list(inference.inputs)
  if inference.check_hole is not Inference.check_hole:
    further['holes'] = 'only some can be filled, see the system; a program does not check them'
  return {'inputs': INPUTS, 'outputs': OUTPUTS, 'sizes': sizes, **further}


def without_folders(config: ConfigDict) -> ConfigDict:
  """The config for a file that is given away: of a path, as `loss.vgg_file`, its last part alone.

  Names of weights stay whole.
  """
  config = config.copy_and_resolve_references()
  for part in ('model', 'loss'):
    for name, value in config.get(part, {}).items():
      if isinstance(value, str) and not (value in names.FILES or systems.named(value)):
        config[part][name] = pathlib.PurePath(value).name
  return config


def _card(trained: Trained, seed: int) -> dict[str, Any]:
  inference, about = trained.inference, trained.card
  source = about.get('source', {})
  config = without_folders(trained.config).to_dict()
  config = {k: v for k, v in config.items() if k in _OF_INFERENCE}
  card = {
    'format_version': FORMAT_VERSION,
    'created_by': f'jaxinpaint {jaxinpaint.__version__}',
    'system': trained.config.system,
    'weights': trained.name,
    'config': config,
    'conventions': conventions(inference),
    'licence': about.get('licence') or source.get('licence') or 'not stated',
  }
  if inference.samples:
    card['seed'] = seed
  return card | {name: about[name] for name in ('results', 'notes', 'source') if about.get(name)}


_OF_INFERENCE = ('version', 'system', 'dtype', 'model')
