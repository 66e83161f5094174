"""Numbers that papers print. They are shown beside measured numbers, and never mixed with them."""

import csv
import importlib.resources
import io
from collections.abc import Sequence

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocols import Metric

PUBLISHED = 'published, other images and masks'
PUBLISHED_RESOURCES = 'published, measured on other hardware'

# (word in the name of a data set, the published data set it is nearest to): the first that fits.
_NEAREST = (
  ('places', 'Places2'),
  ('celeb', 'CelebA'),
  ('celeb', 'CelebA-HQ'),
  ('', 'real photographs'),
)

# {protocol, table, method, dataset, mask, percent, metric, value}, as columns of published.csv.
Published = dict[str, str]


def _all_rows() -> list[Published]:
  text = importlib.resources.files('jaxinpaint.report').joinpath('published.csv').read_text()
  return list(csv.DictReader(io.StringIO(text)))


def published_rows(protocol: str, dataset: str) -> list[Published]:
  """The rows of published.csv of a protocol and data set."""
  return [r for r in _all_rows() if (r['protocol'], r['dataset']) == (protocol, dataset)]


def published_datasets(protocol: str) -> list[str]:
  """The data sets of a protocol's published rows."""
  return sorted({r['dataset'] for r in _all_rows() if r['protocol'] == protocol and r['dataset']})


def nearest_dataset(name: str, protocol: str) -> str:
  """The protocol's published data set that is nearest to one of this name; '' where none is."""
  known = published_datasets(protocol)
  fits = (dataset for word, dataset in _NEAREST if word in name.lower() and dataset in known)
  return next(fits, '')


def belongs(row: Published, bin: Bin) -> bool:
  """Whether a row is about the masks of a bin: the same range, or the same kind and share."""
  return bin.matches(row['mask'], row['percent'])


def of_bin(
  rows: Sequence[Published], bin: Bin, metrics: Sequence[Metric]
) -> list[tuple[str, dict[str, str]]]:
  """[(method, {name of the metric: number as printed})] of a bin, in the order of the file."""
  names = {m.published: m.name for m in metrics if m.published}
  by_method: dict[str, dict[str, str]] = {}
  for row in rows:
    if belongs(row, bin):
      by_method.setdefault(row['method'], {})
      if row['metric'] in names:
        by_method[row['method']][names[row['metric']]] = row['value']
  return [(method, numbers) for method, numbers in by_method.items() if numbers]


def elsewhere(
  rows: Sequence[Published], bins: Sequence[Bin], metrics: Sequence[Metric]
) -> list[Published]:
  """Rows whose masks belong to no bin of the protocol, without resources."""
  wanted = [r for r in rows if not _is_resource(r, metrics)]
  return [r for r in wanted if not any(belongs(r, b) for b in bins)]


def resources(
  rows: Sequence[Published], metrics: Sequence[Metric]
) -> list[tuple[str, dict[str, str]]]:
  """[(method, {name: number as printed})] of what methods cost, independent of the holes."""
  by_method: dict[str, dict[str, str]] = {}
  for row in rows:
    if _is_resource(row, metrics):
      by_method.setdefault(row['method'], {})[row['metric']] = row['value']
  return list(by_method.items())


def _is_resource(row: Published, metrics: Sequence[Metric]) -> bool:
  quality = {m.published for m in metrics}
  return not row['mask'] and not row['percent'] and row['metric'] not in quality
