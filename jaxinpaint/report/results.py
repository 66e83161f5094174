"""The results of an evaluation: the numbers of every image, and their means."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric, Protocol

# Names of fills in reports that are older than `Results.kinds`.
_FILLS = ('mean fill', 'Telea', 'Navier-Stokes')


@dataclasses.dataclass(frozen=True)
class Record:
  """The numbers of one output.

  Attributes:
    predictor: its name.
    bin: of the mask.
    index: of the image in its set.
    file: its path or name.
    hole_share: of the mask, in [0, 1].
    values: {metric: number}.
  """

  predictor: str
  bin: Bin
  index: int
  file: str
  hole_share: float
  values: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Example:
  """Pictures of one image and mask for the grids, uint8; outputs are as they were measured."""

  bin: Bin
  index: int
  truth: np.ndarray
  mask: np.ndarray
  outputs: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class SetValue:
  """One number of all images of a bin together, for example FID.

  Attributes:
    predictor: name of the row.
    bin: of the masks.
    metric: its name.
    value: the number.
    n: how many images it was computed from.
  """

  predictor: str
  bin: Bin
  metric: str
  value: float
  n: int


@dataclasses.dataclass(frozen=True)
class Summary:
  """A mean over images.

  Attributes:
    mean: of the finite values; nan without any.
    standard_error: sample standard deviation / sqrt(n); nan with fewer than two values.
    n: how many finite values there are.
    infinite: how many values are infinite (PSNR of an output equal to the truth); not in the mean.
    undefined: how many values are nan; not in the mean.
    low: lower end of the mean's 95 % interval, see `statistics`; nan if it was not computed.
    high: upper end, likewise.
  """

  mean: float
  standard_error: float
  n: int
  infinite: int = 0
  undefined: int = 0
  low: float = math.nan
  high: float = math.nan


def summarise(values: Iterable[float]) -> Summary:
  """Mean and standard error of the finite values."""
  values = np.array(list(values), np.float64)
  finite = values[np.isfinite(values)]
  n = len(finite)
  return Summary(
    mean=float(finite.mean()) if n else math.nan,
    standard_error=float(finite.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
    n=n,
    infinite=int(np.isinf(values).sum()),
    undefined=int(np.isnan(values).sum()),
  )


@dataclasses.dataclass
class Results:
  """All results of an evaluation.

  Attributes:
    protocol: how it was measured.
    predictors: names of the rows, in the order given.
    bins: that were measured.
    records: one for each row, bin and image.
    examples: pictures of the first images.
    skipped: [(path, why)] of images that could not be read.
    mask_sha256: of the set of masks.
    seed: of the masks.
    size: (height, width).
    dataset: its name.
    masks: their name.
    notes: what a reader must know to judge the numbers.
    set_values: numbers of whole sets of images, for example FID.
    not_computed: {metric: why, and the command that helps}, for networks without weights.
    kinds: {row: 'system', 'fill' or 'files'}.
    baseline: the row that others are compared with, image by image; '': none.
    resources: {row: {name of a resource: number}}, if they were measured.
    cases: pictures of the best and worst outputs, see `extremes.collect`.
    case_metric: name of the metric that says which are best; '': `extremes.default_metric`.
    sources: the reports that `combine` joined to these results; empty for one evaluation.
  """

  protocol: Protocol
  predictors: tuple[str, ...]
  bins: tuple[Bin, ...]
  records: list[Record]
  examples: list[Example]
  skipped: list[tuple[str, str]]
  mask_sha256: str
  seed: int
  size: tuple[int, int]
  dataset: str = ''
  masks: str = ''
  notes: dict[str, Any] = dataclasses.field(default_factory=dict)
  set_values: list[SetValue] = dataclasses.field(default_factory=list)
  not_computed: dict[str, str] = dataclasses.field(default_factory=dict)
  kinds: dict[str, str] = dataclasses.field(default_factory=dict)
  baseline: str = ''
  resources: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  cases: list[Example] = dataclasses.field(default_factory=list)
  case_metric: str = ''
  sources: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  @property
  def count(self) -> int:
    """How many images were measured."""
    return len({r.index for r in self.records})

  @property
  def masks_shown(self) -> str:
    """What a report calls the masks; also if each bin has its own, or they have no name."""
    return self.masks or ("the bins' own" if all(b.masks for b in self.bins) else 'given')

  def values(self, predictor: str, bin: Bin, metric: str) -> list[float]:
    """The numbers of one row, in the order of the images; images without a number are left out."""
    return [
      r.values[metric]
      for r in self.records
      if (r.predictor, r.bin) == (predictor, bin) and metric in r.values
    ]

  @property
  def image_metrics(self) -> tuple[Metric, ...]:
    """The protocol's metrics for which at least one image has a number."""
    measured = lambda name: any(name in r.values for r in self.records)
    return tuple(m for m in self.protocol.metrics if measured(m.name))

  @property
  def set_metrics(self) -> tuple[Metric, ...]:
    """The protocol's metrics that were measured on whole sets of images."""
    measured = {v.metric for v in self.set_values}
    return tuple(m for m in self.protocol.metrics if m.name in measured)

  def set_value(self, predictor: str, bin: Bin, metric: str) -> SetValue | None:
    """The number of all images of a bin together; None if it was not measured."""
    wanted = (predictor, bin, metric)
    return next((v for v in self.set_values if (v.predictor, v.bin, v.metric) == wanted), None)

  def hole_share(self, bin: Bin) -> tuple[float, float, float] | None:
    """(mean, least, largest) share of the holes that were drawn for a bin; None without images."""
    shares = list({r.index: r.hole_share for r in self.records if r.bin == bin}.values())
    return (float(np.mean(shares)), min(shares), max(shares)) if shares else None

  def kind(self, predictor: str) -> str:
    """'system', 'fill' or 'files'."""
    return self.kinds.get(predictor) or ('fill' if predictor in _FILLS else 'system')

  def summary(self, predictor: str, bin: Bin, metric: str) -> Summary:
    """Mean over the images."""
    return summarise(self.values(predictor, bin, metric))

  def deviations(self) -> list[str]:
    """How this evaluation differs from its protocol, in sentences without a full stop."""
    p, sentences = self.protocol, []
    if self.size != (p.size, p.size):
      sentences.append(f'images of {self.size[0]} x {self.size[1]} instead of {p.size} x {p.size}')
    if self.count != p.count:
      sentences.append(f'{self.count} images instead of {p.count}')
    if self.bins != p.bins:
      labels = [', '.join(b.label for b in bins) for bins in (self.bins, p.bins)]
      sentences.append(f'hole shares {labels[0]} % instead of {labels[1]} %')
    if self.masks and self.masks != p.masks:
      sentences.append(f'masks {self.masks} instead of {p.masks}')
    return sentences
