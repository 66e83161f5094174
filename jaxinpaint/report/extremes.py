"""Best and worst cases: which images a predictor fills best and worst, and their pictures."""

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

COUNT = 3  # best and worst, of each predictor in each bin

Complete = Callable[[str, Bin, Sequence[int]], Sequence[Example]]


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


def wanted(results: Results, count: int = COUNT) -> dict[tuple[str, Bin], list[int]]:
  """{(predictor, bin): numbers of the images} whose pictures a report shows, fills left out."""
  names = [n for n in results.predictors if results.kind(n) != 'fill']
  found = {}
  for name in names:
    for b in results.bins:
      both = chosen(results, name, b, count)
      found[name, b] = sorted(r.index for r in both['best'] + both['worst'])
  return {key: indices for key, indices in found.items() if indices}


def collect(results: Results, complete: Complete, count: int = COUNT) -> None:
  """Fills `results.cases`: completes the extremes once more, since nobody knew them before.

  So an evaluation need not keep pictures while it runs, and one that was interrupted has the same
  cases as one that was not.

  Args:
    results: with all records.
    complete: (predictor, bin, numbers of images) -> examples with that predictor's outputs.
    count: best and worst of each predictor and bin.
  """
  metric = metric_of(results)
  results.case_metric = metric.name
  joined: dict[tuple[Bin, int], Example] = {}
  for (name, b), indices in wanted(results, count).items():
    for e in complete(name, b, indices):
      known = joined.setdefault((b, e.index), dataclasses.replace(e, outputs={}))
      known.outputs[name] = e.outputs[name]
  results.cases = list(joined.values())
