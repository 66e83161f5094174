"""What an evaluation protocol is made of: metrics, bins of holes, and how images are prepared.

`protocols` has the list of those there are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinpaint.data import resizing
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import pixels

# What `deep` computes by networks of features, {name: what it is taken of}: 'pair', an output and
# its truth; 'set', all images of a bin; 'samples', several outputs of one image. Named here so that
# a protocol can be checked without loading any network.
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
    function: a key of `metrics.FUNCTIONS`, or of `deep.FUNCTIONS` where a network of features is
      needed.
    options: its keyword arguments.
    better: 'higher' or 'lower'.
    digits: shown after the point.
    published: its name in published.csv; '' where the source does not give it.
    of: 'protocol': what is measured is as the protocol's `composite` says; 'composite', 'raw': it
      is this whatever the protocol says, for tables that show both.
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
    """Whether it needs a network of features (`deep.FUNCTIONS`), so that it cannot be called."""
    return self.function not in pixels.FUNCTIONS

  def __call__(self, truth: np.ndarray, output: np.ndarray, hole: np.ndarray) -> float:
    """The number of one image: [H, W, 3] each, and bool[H, W], True = hole.

    Raises:
      ValueError: the metric is deep.
    """
    if self.is_deep:
      raise ValueError(f'metric {self.name!r} needs a network of features: see evaluation.deep')
    function, takes_hole = pixels.FUNCTIONS[self.function]
    arguments = (truth, output, hole) if takes_hole else (truth, output)
    return function(*arguments, **self.options)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a paper measures.

  Attributes:
    id: stamped into every result.
    source: where it is taken from.
    notes: what the source states, what its code does, what it leaves open and how that is read
      here.
    size: images are squares of this side.
    count: images in each bin.
    bins: by share of hole.
    masks: spec of the masks of bins that have none of their own (`data.masks.make`); '': all have.
    composite: the output is pasted into the known picture before it is measured; False: what the
      network returned is measured as it is.
    round_to_uint8: and rounded to 8 bits; metrics then see uint8.
    metrics: columns of the tables.
    crop: how an image becomes a square: 'center' (the centre square), 'resize' (all of it, its
      shape given up); '': as the model's config says.
    resize: kernel that brings it to `size`, of `data.resizing.KERNELS`.
    rounding: to 8 bits: 'nearest', or 'truncate' as codes that cast without rounding do.
    samples: outputs of one image and hole, where the source draws several.
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
  crop: str = ''
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
    for what, found in (
      ('metrics', [m.name for m in self.metrics]),
      ('bins', [b.label for b in self.bins]),
    ):
      if len(set(found)) != len(found):
        raise fail(f'the names of its {what}, {found}, must each occur once')
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
    """Those that are computed of one image on the host."""
    return tuple(m for m in self.metrics if not m.is_deep)

  @property
  def deep_metrics(self) -> tuple[Metric, ...]:
    """Those that need a network of features."""
    return tuple(m for m in self.metrics if m.is_deep)

  def image_options(self, crop: str = '') -> dict[str, str]:
    """How `data.pipeline.evaluation_set` must prepare the images: its keyword arguments.

    Args:
      crop: of the model's config, followed where the protocol leaves it open.
    """
    own = self.crop or ('resize' if crop == 'resize' else 'center')
    return {'crop': own, 'resize': self.resize}

  def check_size(self, height: int, width: int) -> None:
    """Raises ValueError where its metrics cannot be taken of images of this size."""
    image, hole = np.zeros((height, width, 3), np.uint8), np.ones((height, width), bool)
    for metric in self.host_metrics:
      metric(image, image, hole)

  def description(self) -> dict[str, Any]:
    """JSON-able: the whole protocol."""
    fields = dataclasses.asdict(self)
    fields['bins'] = [b.label for b in self.bins]
    fields['bin_masks'] = {b.label: b.masks for b in self.bins if b.masks}
    return fields
