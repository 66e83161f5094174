"""Best and worst cases: the images that a row fills best and worst, and their pictures."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric, Protocol
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
)

COUNT = 3  # how many best and how many worst cases of each row in each bin

Complete = Callable[[str, Bin, Sequence[int]], Sequence[Example]]


def default_metric(protocol: Protocol) -> Metric:
  """The metric that chooses cases: the first metric of the hole, else the first of all.

  A number of the whole image depends on the share of the hole, also within a bin: its best cases
  would be the images with the smallest holes.
  """
  of_holes = [m for m in protocol.metrics if m.name.startswith('hole_')]
  return (of_holes or list(protocol.metrics))[0]


def chosen(results: Results, predictor: str, bin: Bin, count: int = COUNT) -> dict[str, list]:
  """{'best': records, 'worst': records}, the best and the worst first.

  No image is in both lists; images without a number are in neither.
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
  """The metric that chooses the cases of these results."""
  wanted = results.case_metric
  named = [m for m in results.image_metrics if m.name == wanted]
  if named:
    return named[0]
  default = default_metric(results.protocol)
  return default if default in results.image_metrics else results.image_metrics[0]


def _value(record: Record, metric: Metric) -> float:
  return record.values.get(metric.name, math.nan)


def _rank(value: float, index: int, metric: Metric) -> tuple[float, int]:
  """Sorts the best first."""
  return (-value if metric.better == 'higher' else value, index)


def wanted(results: Results, count: int = COUNT) -> dict[tuple[str, Bin], list[int]]:
  """{(row, bin): numbers of the images} whose pictures a report shows; not of fills."""
  names = [n for n in results.predictors if results.kind(n) != 'fill']
  cases = {}
  for name in names:
    for b in results.bins:
      both = chosen(results, name, b, count)
      cases[name, b] = sorted(r.index for r in both['best'] + both['worst'])
  return {key: indices for key, indices in cases.items() if indices}


def collect(results: Results, complete: Complete, count: int = COUNT) -> None:
  """Fills `results.cases`: completes the best and worst images once more.

  They are known only at the end. So an evaluation does not have to keep pictures while it runs, and
  has the same cases after an interruption.

  Args:
    results: with all records.
    complete: (row, bin, numbers of images) -> examples with that row's outputs.
    count: how many best and how many worst cases of each row and bin.
  """
  metric = metric_of(results)
  results.case_metric = metric.name
  joined: dict[tuple[Bin, int], Example] = {}
  for (name, b), indices in wanted(results, count).items():
    for e in complete(name, b, indices):
      known = joined.setdefault((b, e.index), dataclasses.replace(e, outputs={}))
      known.outputs[name] = e.outputs[name]
  results.cases = list(joined.values())
