"""What an evaluation protocol consists of: metrics, bins of holes, and how images are prepared.

The protocols themselves are in `protocols`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinpaint.data import resizing
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import pixels

# Functions of `deep`, which need networks of features: {name: what it is computed from}: 'pair', an
# output and its truth; 'set', all images of a bin; 'samples', several outputs of one image. The
# names are here so that a protocol can be checked without loading a network.
DEEP = {
  'lpips': 'pair',
  'fid': 'set',
  'p_ids': 'set',
  'u_ids': 'set',
  'lpips_diversity': 'samples',
  'best_of_k': 'samples',
}

ROUNDINGS = ('nearest', 'truncate')


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number of a table.

  Attributes:
    name: in files ('psnr', 'hole_psnr').
    label: in tables ('PSNR').
    function: a key of `pixels.FUNCTIONS`, or of `deep.FUNCTIONS` if it needs a network of features.
    options: its keyword arguments.
    better: 'higher' or 'lower'.
    digits: how many are shown after the point.
    published: its name in published.csv; '' if the source does not print it.
    of: 'protocol': it measures the output that the protocol's `composite` says; 'composite' or
      'raw': it always measures this output, for tables that show both.
  """

  name: str
  label: str
  function: str
  options: Mapping[str, Any]
  better: str
  digits: int
  published: str = ''
  of: str = 'protocol'

  @property
  def is_deep(self) -> bool:
    """Whether it needs a network of features (`deep.FUNCTIONS`); then it cannot be called."""
    return self.function not in pixels.FUNCTIONS

  def __call__(self, truth: np.ndarray, output: np.ndarray, hole: np.ndarray) -> float:
    """The number of one image: [H, W, 3] each, and bool[H, W], True = hole.

    Raises:
      ValueError: the metric is deep.
    """
    if self.is_deep:
      raise ValueError(f'metric {self.name!r} needs a network of features: see metrics.deep')
    function, takes_hole = pixels.FUNCTIONS[self.function]
    arguments = (truth, output, hole) if takes_hole else (truth, output)
    return function(*arguments, **self.options)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a paper measures.

  Attributes:
    id: is part of every result.
    source: the paper or code that it follows.
    notes: what the source states, what its code does, and what this library decides where both are
      silent.
    size: images are squares of this side.
    count: how many images in each bin.
    bins: by share of the hole.
    masks: specification of the masks (`masks.spec.make`) for bins without their own masks; '': all
      bins have their own.
    composite: the known pixels are pasted into the output before it is measured; False: the output
      of the network is measured as it is.
    round_to_uint8: outputs are rounded to 8 bits; metrics get uint8.
    metrics: columns of the tables.
    crop: how an image becomes a square, of `data.resizing.CROPS`: the same for every system, since
      another part of the picture is another test. '' only in reports of earlier versions, where the
      system's config decided.
    resize: kernel that resizes images to `size`, of `data.resizing.KERNELS`.
    rounding: to 8 bits: 'nearest', or 'truncate' for sources that cast without rounding.
    samples: how many outputs of one image and hole the source draws.
  """

  id: str
  source: str
  notes: str
  size: int
  count: int
  bins: tuple[Bin, ...]
  masks: str
  composite: bool
  round_to_uint8: bool
  metrics: tuple[Metric, ...]
  crop: str = 'center'
  resize: str = 'area'
  rounding: str = 'nearest'
  samples: int = 1

  def __post_init__(self):
    fail = lambda what: ValueError(f'protocol {self.id!r}: {what}')
    white = 255 if self.round_to_uint8 else 1
    wrong = [m.name for m in self.metrics if m.options.get('data_range', white) != white]
    if wrong:
      raise fail(f'data_range of {wrong} must be {white}')
    unknown = [m.function for m in self.metrics if m.is_deep and m.function not in DEEP]
    if unknown:
      raise fail(f'unknown functions {unknown}; there are: {", ".join((*pixels.FUNCTIONS, *DEEP))}')
    for what, names in (
      ('metrics', [m.name for m in self.metrics]),
      ('bins', [b.label for b in self.bins]),
    ):
      if len(set(names)) != len(names):
        raise fail(f'the names of its {what}, {names}, must each occur once')
    for what, value, known in (
      ('crop', self.crop, ('', *resizing.CROPS)),
      ('resize', self.resize, tuple(resizing.KERNELS)),
      ('rounding', self.rounding, ROUNDINGS),
    ):
      if value not in known:
        raise fail(f'{what} {value!r} must be one of {", ".join(map(repr, known))}')
    if not self.masks and not all(b.masks for b in self.bins):
      raise fail('it must have masks, or each of its bins must')
    if self.samples < 1:
      raise fail(f'samples {self.samples} must be at least 1')

  @property
  def host_metrics(self) -> tuple[Metric, ...]:
    """The metrics that are computed on the host, for one image at a time."""
    return tuple(m for m in self.metrics if not m.is_deep)

  @property
  def deep_metrics(self) -> tuple[Metric, ...]:
    """The metrics that need a network of features."""
    return tuple(m for m in self.metrics if m.is_deep)

  @property
  def image_options(self) -> dict[str, str]:
    """Keyword arguments of `data.pipeline.evaluation_set`, which prepares the images."""
    return {'crop': self.crop, 'resize': self.resize}

  def check_size(self, height: int, width: int) -> None:
    """Raises ValueError if its metrics cannot measure images of this size."""
    image, hole = np.zeros((height, width, 3), np.uint8), np.ones((height, width), bool)
    for metric in self.host_metrics:
      metric(image, image, hole)

  def description(self) -> dict[str, Any]:
    """JSON-able: the whole protocol."""
    fields = dataclasses.asdict(self)
    fields['bins'] = [b.label for b in self.bins]
    fields['bin_masks'] = {b.label: b.masks for b in self.bins if b.masks}
    return fields
