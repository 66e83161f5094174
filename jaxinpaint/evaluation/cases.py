"""Best and worst cases: which images a predictor fills best and worst, and their pictures."""

import dataclasses
import math
from collections.abc import Collection, Mapping

from jaxinpaint.evaluation.protocols import Bin, Metric, Protocol
from jaxinpaint.evaluation.results import Example, Record, Results

COUNT = 3  # best and worst, of each predictor in each bin


def default_metric(protocol: Protocol) -> Metric:
  """What cases are chosen by: the first metric of the hole, else the first of all.

  Within a bin a whole-image number still follows the share of the hole, so that the best cases
  would be those with the least to fill.
  """
  of_holes = [m for m in protocol.metrics if m.name.startswith('hole_')]
  return (of_holes or list(protocol.metrics))[0]


def chosen(results: Results, predictor: str, bin: Bin, count: int = COUNT) -> dict[str, list]:
  """{'best': records, 'worst': records}, both from the extreme on.

  No image is in both; images without a number of the metric are in neither.
  """
  metric = metric_of(results)
  records = [
    r
    for r in results.records
    if (r.predictor, r.bin) == (predictor, bin) and not math.isnan(_value(r, metric))
  ]
  records.sort(key=lambda r: _rank(_value(r, metric), r.index, metric))
  count = min(count, len(records) // 2)
  return {'best': records[:count], 'worst': records[::-1][:count]}


def metric_of(results: Results) -> Metric:
  """What the cases of these results are chosen by."""
  wanted = results.case_metric
  found = [m for m in results.image_metrics if m.name == wanted]
  if found:
    return found[0]
  default = default_metric(results.protocol)
  return default if default in results.image_metrics else results.image_metrics[0]


def _value(record: Record, metric: Metric) -> float:
  return record.values.get(metric.name, math.nan)


def _rank(value: float, index: int, metric: Metric) -> tuple[float, int]:
  """Sorts the best first."""
  return (-value if metric.better == 'higher' else value, index)


@dataclasses.dataclass(frozen=True)
class _Kept:
  rank: tuple[float, int]
  example: Example


class Keeper:
  """Keeps the pictures of the best and worst outputs while an evaluation runs.

  It holds 2 * count pictures for each predictor and bin, however many images there are; which ones
  does not depend on the order they come in.

  Args:
    metric: by which outputs are good or bad.
    count: so many best and so many worst are kept.
    predictors: only theirs; None: everybody's.
  """

  def __init__(self, metric: Metric, count: int = COUNT, predictors: Collection[str] | None = None):
    """See the class."""
    self.metric = metric
    self._count, self._predictors = count, predictors
    self._best: dict[tuple[str, Bin], list[_Kept]] = {}
    self._worst: dict[tuple[str, Bin], list[_Kept]] = {}

  def offer(self, example: Example, values: Mapping[str, Mapping[str, float]]) -> None:
    """Keeps of an image what belongs to the extremes so far.

    Args:
      example: with the outputs of the predictors.
      values: {predictor: {metric: number}} of these outputs.
    """
    for name, numbers in values.items() if self._count > 0 else ():
      value = numbers.get(self.metric.name, math.nan)
      if math.isnan(value) or (self._predictors is not None and name not in self._predictors):
        continue
      one = dataclasses.replace(example, outputs={name: example.outputs[name]})
      kept = _Kept(_rank(value, example.index, self.metric), one)
      key = (name, example.bin)
      self._best[key] = sorted([*self._best.get(key, []), kept], key=_by_rank)[: self._count]
      self._worst[key] = sorted([*self._worst.get(key, []), kept], key=_by_rank)[-self._count :]

  @property
  def cases(self) -> list[Example]:
    """What is kept: one example for each image and bin, with the outputs that were extreme."""
    found: dict[tuple[str, int], Example] = {}
    for kept in [*self._best.values(), *self._worst.values()]:
      for k in kept:
        e = k.example
        known = found.setdefault(
          (e.bin.label, e.index), dataclasses.replace(e, outputs=dict(e.outputs))
        )
        known.outputs.update(e.outputs)
    return list(found.values())


def _by_rank(kept: _Kept) -> tuple[float, int]:
  return kept.rank
