"""Joins reports of several evaluations into one comparison.

Reports can be joined if protocol, data set, size, bins, images and masks are the same. Then every
row was measured on the same images with the same holes, and rows of different reports can be
compared image by image.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.report import files
from jaxinpaint.report.files import Report, ReportError
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
)


def combine(
  folders: Sequence[str | os.PathLike],
  *,
  baseline: str | None = None,
  any_dataset_name: bool = False,
) -> Report:
  """Reads reports and joins them.

  A row that has the same name and the same numbers in two reports (a classical fill) is kept once.
  If the numbers differ, each row gets the name of its report's folder behind its own.

  Args:
    folders: of two or more reports.
    baseline: of the joined comparison; None: the first report's.
    any_dataset_name: data sets with different names count as one if their files have equal names.

  Returns:
    The joined report, with the folder of the first.

  Raises:
    ReportError: a report cannot be read, or two of them cannot be compared; says which and why.
  """
  paths = [pathlib.Path(f) for f in folders]
  if len(paths) < 2:
    raise ReportError('give the folders of two reports or more')
  if len({p.resolve() for p in paths}) < len(paths):
    raise ReportError('a report was given twice: give each folder once')
  reports = [files.load(p) for p in paths]
  for other in reports[1:]:
    _check(reports[0], other, any_dataset_name)
  names = _names(reports)
  results = _join(reports, names)
  results.baseline = names[0].get(results.baseline, '') if baseline is None else baseline
  if results.baseline and results.baseline not in results.predictors:
    raise ReportError(
      f'--baseline {results.baseline!r} must be one of {", ".join(map(repr, results.predictors))}'
    )
  published = []
  for r in reports:
    published += [row for row in r.published if row not in published]
  return Report(reports[0].folder, results, published, _environment(reports))


def _check(first: Report, other: Report, any_dataset_name: bool) -> None:
  """Raises ReportError where two reports did not measure the same."""
  a, b = first.results, other.results
  size = lambda r: f'{r.size[0]} x {r.size[1]}'
  # In this order, because an earlier fact explains a later one: another count gives other masks.
  facts = [
    ('protocol', a.protocol.id, b.protocol.id),
    ('data set', a.dataset, a.dataset if any_dataset_name else b.dataset),
    ('image size', size(a), size(b)),
    ('count of images', a.count, b.count),
    ('bins', [x.label for x in a.bins], [x.label for x in b.bins]),
    ('seed of the masks', a.seed, b.seed),
    ('mask set (SHA-256)', a.mask_sha256, b.mask_sha256),
  ]
  for what, x, y in facts:
    if x != y:
      advice = (
        'numbers of different protocols are not comparable'
        if what == 'protocol'
        else 'evaluate both on the same images and masks'
      )
      if what == 'data set':
        advice += ', or pass --any_dataset_name if both names are of the same files'
      raise ReportError(
        f'{first.folder} and {other.folder} cannot be in one table: their {what} is {x!r} and '
        f'{y!r}; {advice}'
      )
  _check_protocols(first, other)
  _check_pictures(first, other)
  mine = _files(first)
  for key, theirs in _files(other).items():
    if mine.get(key, theirs) != theirs:
      raise ReportError(
        f'{first.folder} and {other.folder} cannot be in one table: image {key[1]} at '
        f'{key[0].label} % is {" with hole share ".join(map(str, mine[key]))} in the first and '
        f'{" with hole share ".join(map(str, theirs))} in the second; evaluate both on the same '
        'images and masks'
      )


def _check_protocols(first: Report, other: Report) -> None:
  """Raises ReportError if one id means different arithmetic; the columns may differ."""
  plain = lambda p: dataclasses.replace(p, metrics=(), notes='', source='', count=0)
  a, b = first.results.protocol, other.results.protocol
  changed = [
    f.name
    for f in dataclasses.fields(Protocol)
    if getattr(plain(a), f.name) != getattr(plain(b), f.name)
    and not (f.name == 'crop' and not (a.crop and b.crop))  # see `_check_pictures`
  ]
  known = {m.name: m for m in a.metrics}
  what = lambda m: (m.function, dict(m.options), m.better, m.of)
  changed += [m.name for m in b.metrics if m.name in known and what(known[m.name]) != what(m)]
  if changed:
    raise ReportError(
      f'{first.folder} and {other.folder} cannot be in one table: both say protocol {a.id!r}, '
      f'but {", ".join(changed)} differ, as versions of the library do; evaluate one of them again'
    )


def _check_pictures(first: Report, other: Report) -> None:
  """Raises ReportError if the test pictures, of equal names, were cut or resized differently.

  Reports of earlier versions may not say how a picture became a square (`Protocol.crop` is '');
  the pictures that both reports keep then decide.
  """
  mine, theirs = ({e.index: e.truth for e in _kept(r)} for r in (first, other))
  both = sorted(mine.keys() & theirs.keys())
  for index in both:
    if not np.array_equal(mine[index], theirs[index]):
      raise ReportError(
        f'{first.folder} and {other.folder} cannot be in one table: their image {index} is not the '
        'same picture: other files, or another crop or kernel; evaluate both on the same images'
      )
  silent = [r for r in (first, other) if not r.results.protocol.crop]
  if silent and not both:
    raise ReportError(
      f'{silent[0].folder}, of an earlier version, does not say how its images were cropped, and '
      'the two reports keep no picture in common that would show it: evaluate it again'
    )


def _kept(r: Report) -> list[Example]:
  """The pictures of a report."""
  return [*r.results.examples, *r.results.cases]


def _files(r: Report) -> dict[tuple[Bin, int], tuple[str, float]]:
  """{(bin, index): (name of the file, share of the hole)}."""
  return {
    (x.bin, x.index): (pathlib.PurePath(x.file).name, x.hole_share) for x in r.results.records
  }


def _numbers(results: Results, name: str) -> dict[tuple[Bin, int], Mapping[str, float]]:
  return {(r.bin, r.index): r.values for r in results.records if r.predictor == name}


def _names(reports: Sequence[Report]) -> list[dict[str, str]]:
  """For each report {name of a row: its name in the joined table}.

  Rows with the same name and the same numbers in two reports keep one name.
  """
  clashing = set()
  for k, r in enumerate(reports):
    for earlier in reports[:k]:
      for name in set(r.results.predictors) & set(earlier.results.predictors):
        if not _equal(_numbers(r.results, name), _numbers(earlier.results, name)):
          clashing.add(name)
  labels = _labels([r.folder for r in reports])
  return [
    {n: f'{n} ({label})' if n in clashing else n for n in r.results.predictors}
    for r, label in zip(reports, labels, strict=True)
  ]


def _equal(a: Mapping[Any, Mapping[str, float]], b: Mapping[Any, Mapping[str, float]]) -> bool:
  """Whether all numbers that both have are the same; False if they have none in common."""
  pairs = [(x[m], b[k][m]) for k, x in a.items() if k in b for m in x.keys() & b[k].keys()]
  return bool(pairs) and all(x == y or (x != x and y != y) for x, y in pairs)


def _labels(folders: Sequence[pathlib.Path]) -> list[str]:
  """The shortest end of each path that differs from the ends of the others."""
  parts = [f.resolve().parts[1:] for f in folders]
  for depth in range(1, max(map(len, parts)) + 1):
    labels = ['/'.join(p[-depth:]) for p in parts]
    if len(set(labels)) == len(labels):
      return labels
  return [str(f) for f in folders]


def _join(reports: Sequence[Report], names: Sequence[Mapping[str, str]]) -> Results:
  first = reports[0].results
  joined = dataclasses.replace(
    first,
    protocol=_protocol([r.results.protocol for r in reports]),
    predictors=(),
    records=[],
    examples=[],
    cases=[],
    skipped=first.skipped,
    notes={},
    set_values=[],
    not_computed={},
    kinds={},
    resources={},
    sources=[],
  )
  records: dict[tuple[str, Bin, int], Record] = {}
  labels = _labels([r.folder for r in reports])
  for r, rename, label in zip(reports, names, labels, strict=True):
    x = r.results
    for record in x.records:
      key = (rename[record.predictor], record.bin, record.index)
      earlier = records.get(key)
      # If two reports measured the same fill, one of them may have more columns.
      values = {**earlier.values, **record.values} if earlier else record.values
      records[key] = dataclasses.replace(earlier or record, predictor=key[0], values=values)
    known = {(v.predictor, v.bin, v.metric) for v in joined.set_values}
    for v in x.set_values:
      v = dataclasses.replace(v, predictor=rename[v.predictor])
      if (v.predictor, v.bin, v.metric) not in known:
        joined.set_values.append(v)
    joined.kinds |= {new: x.kind(old) for old, new in rename.items()}
    joined.resources |= {rename[n]: v for n, v in x.resources.items() if n in rename}
    for metric, why in x.not_computed.items():
      joined.not_computed.setdefault(metric, f'{why} (in {label})')
    joined.sources += x.sources or [
      {
        'folder': str(r.folder),
        'predictors': list(rename.values()),
        'environment': r.environment,
        'notes': x.notes,
      }
    ]
    if not x.sources:
      joined.notes |= {f'{label}, {k}': v for k, v in x.notes.items()}
    else:
      joined.notes |= x.notes
  every = dict.fromkeys(new for some in names for new in some.values())
  joined.predictors = tuple(sorted(every, key=lambda n: joined.kinds[n] == 'fill'))
  joined.records = list(records.values())
  joined.examples = _pictures([r.results.examples for r in reports], names)
  joined.cases = _pictures([r.results.cases for r in reports], names)
  return joined


def _protocol(several: Sequence[Protocol]) -> Protocol:
  """With the columns of all."""
  metrics = {}
  for p in several:
    for m in p.metrics:
      metrics.setdefault(m.name, m)
  return dataclasses.replace(several[0], metrics=tuple(metrics.values()))


def _pictures(
  several: Sequence[Sequence[Example]], names: Sequence[Mapping[str, str]]
) -> list[Example]:
  """One example for each bin and image, with the outputs of all reports."""
  joined: dict[tuple[Bin, int], Example] = {}
  for examples, rename in zip(several, names, strict=True):
    for e in examples:
      known = joined.setdefault((e.bin, e.index), dataclasses.replace(e, outputs={}))
      known.outputs.update({rename[n]: x for n, x in e.outputs.items() if n in rename})
  return list(joined.values())


def _environment(reports: Sequence[Report]) -> dict[str, Any]:
  """Versions and hardware of all reports; if they differ, all values, joined by ' / '."""
  keys = dict.fromkeys(k for r in reports for k in r.environment)
  joined = {}
  for key in keys:
    values = list(dict.fromkeys(str(r.environment.get(key)) for r in reports))
    joined[key] = reports[0].environment.get(key) if len(values) == 1 else ' / '.join(values)
  return joined


if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import combine as command

  sys.exit(command.main())
