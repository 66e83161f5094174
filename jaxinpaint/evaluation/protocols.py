"""Evaluation protocols as data: what is measured, on which images and holes, and how.

The same name means different arithmetic in different papers, so numbers are only comparable under
one protocol; its id is stamped into every result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxinpaint.evaluation import metrics


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
    published: its name in published.csv; '' where papers do not give it.
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

  def __call__(self, truth: np.ndarray, output: np.ndarray, hole: np.ndarray) -> float:
    """The number of one image: [H, W, 3] each, and bool[H, W], True = hole."""
    function, takes_hole = metrics.FUNCTIONS[self.function]
    arguments = (truth, output, hole) if takes_hole else (truth, output)
    return function(*arguments, **self.options)


@dataclasses.dataclass(frozen=True)
class Bin:
  """Masks whose share of the image lies in (low, high].

  Attributes:
    low: share of the image.
    high: likewise.
    masks: spec of the masks of this bin alone, where a protocol has several kinds (the survey's
      centre squares of 10 % beside its random holes of 10 %); '': the protocol's.
    name: what to call the bin ('center 10'); '': its range in percent.
  """

  low: float
  high: float
  masks: str = ''
  name: str = ''

  @property
  def label(self) -> str:
    """The name, or '10-20', in percent."""
    return self.name or f'{100 * self.low:g}-{100 * self.high:g}'

  def holds(self, share: float) -> bool:
    """Whether a mask of this share of hole belongs here."""
    return self.low < share <= self.high


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a paper measures.

  Attributes:
    id: stamped into every result.
    source: where it is taken from.
    notes: what the source leaves open, and how it is read here.
    size: images are squares of this side.
    count: images in each bin.
    bins: by share of hole.
    masks: spec of the masks where none are given (`data.masks.make`).
    composite: the output is pasted into the known picture before it is measured.
    round_to_uint8: and rounded to 8 bits; metrics then see uint8.
    metrics: columns of the tables.
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

  def __post_init__(self):
    white = 255 if self.round_to_uint8 else 1
    wrong = [m.name for m in self.metrics if m.options.get('data_range', white) != white]
    if wrong:
      raise ValueError(f'protocol {self.id!r}: data_range of {wrong} must be {white}')

  def description(self) -> dict[str, Any]:
    """JSON-able: the whole protocol."""
    fields = dataclasses.asdict(self)
    fields['bins'] = [b.label for b in self.bins]
    return fields


_RGB8 = {'data_range': 255}
_SSIM = {'definition': 'uniform7', 'data_range': 255}

SEED000 = Protocol(
  id='seed000',
  source=(
    'Wu, Zhang, Wang, Chen, Qin: Image Inpainting Based on Perceptual Inference and External '
    'Spatial Prior Features; tables 1 and 2'
  ),
  notes=(
    'The paper states neither the range nor the window of its metrics: 8-bit RGB composites, PSNR '
    'with 255, SSIM by a uniform 7 x 7 window with sample covariance on each channel, L1 as the '
    'mean absolute difference of [0, 1] images in percent. Its text says 0-20 % where its tables '
    'say 10-20 %: both are measured.'
  ),
  size=256,
  count=500,
  bins=(Bin(0.0, 0.2), Bin(0.1, 0.2), Bin(0.2, 0.4), Bin(0.4, 0.6)),
  masks='irregular',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 3, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _SSIM, 'higher', 4, 'SSIM'),
    Metric('l1_percent', 'L1 %', 'l1_percent', _RGB8, 'lower', 2, 'L1'),
    Metric('hole_psnr', 'hole PSNR', 'psnr_hole', _RGB8, 'higher', 3),
    Metric('hole_ssim', 'hole SSIM', 'ssim_hole', _SSIM, 'higher', 4),
    Metric('hole_l1_percent', 'hole L1 %', 'l1_percent_hole', _RGB8, 'lower', 2),
  ),
)

PROTOCOLS: dict[str, Protocol] = {p.id: p for p in (SEED000,)}


def get(name: str) -> Protocol:
  """The protocol of that id.

  Raises:
    ValueError: there is none; lists those there are.
  """
  if name not in PROTOCOLS:
    raise ValueError(f'unknown protocol {name!r}; there are: {", ".join(PROTOCOLS)}')
  return PROTOCOLS[name]


def parse_bins(labels: Sequence[str]) -> tuple[Bin, ...]:
  """['10-20', '20-40'], in percent -> bins.

  Raises:
    ValueError: not LOW-HIGH with 0 <= LOW < HIGH <= 100, or one is there twice.
  """
  bins = []
  for label in labels:
    try:
      low, high = (float(x) / 100 for x in label.strip().rstrip('%').split('-'))
    except ValueError as error:
      raise ValueError(f'bin {label!r} must be LOW-HIGH in percent of hole, as 10-20') from error
    if not 0 <= low < high <= 1:
      raise ValueError(f'bin {label!r} must satisfy 0 <= LOW < HIGH <= 100')
    bins.append(Bin(low, high))
  if not bins or len(set(bins)) != len(bins):
    raise ValueError(f'bins {list(labels)} must be at least one, each once')
  return tuple(bins)
