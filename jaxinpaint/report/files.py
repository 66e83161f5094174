"""The folder of a report: written at once, and read back. docs/evaluation.md describes its files.

report.html, report.md, grid_BIN.png       for people
metrics.json, per_image.csv, pictures.npz  for programs; `load` reads them
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxinpaint import arrays
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import protocols
from jaxinpaint.metrics.protocols import Metric, Protocol
from jaxinpaint.report import grids, page, statistics
from jaxinpaint.report.published import Published
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
  SetValue,
)
from jaxinpaint.report.statistics import Statistics
from jaxinpaint.report.tables import markdown
from jaxinpaint.runtime import atomic
from jaxinpaint.runtime.environment import environment

SCHEMA = 2
METRICS, IMAGES, PICTURES = 'metrics.json', 'per_image.csv', 'pictures.npz'

_FIRST_COLUMNS = ('protocol', 'predictor', 'bin', 'index', 'file', 'hole_share')


class ReportError(ValueError):
  """A report on disk cannot be read or joined; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Report:
  """A report read back.

  Attributes:
    folder: of the report.
    results: with pictures, if the report has them.
    published: rows of papers in its tables.
    environment: versions and hardware of the evaluation.
  """

  folder: pathlib.Path
  results: Results
  published: list[Published]
  environment: dict[str, Any]


def write(
  results: Results,
  folder: str | os.PathLike,
  published: Sequence[Published] = (),
  *,
  measured_on: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a report; an earlier one in the same folder is kept as FOLDER.bak, FOLDER.bak2, ...

  The files are written into a temporary folder, which is then renamed: a crash leaves the earlier
  report whole.

  Args:
    results: of `evaluate`.
    folder: is made if it does not exist.
    published: of `published_rows`.
    measured_on: versions and hardware; None: those of this process.

  Returns:
    The folder.

  Raises:
    FileExistsError: see `check_folder`.
  """
  folder = pathlib.Path(folder)
  check_folder(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  with atomic.folder(folder) as new:
    about = dict(environment() if measured_on is None else measured_on)
    text = json.dumps(
      to_json(results, published, about), indent=2, ensure_ascii=False, allow_nan=False
    )
    (new / METRICS).write_bytes(atomic.as_bytes(text + '\n'))
    (new / IMAGES).write_bytes(atomic.as_bytes(per_image_csv(results)))
    save_pictures(results, new / PICTURES)
    pictures = {}
    for b in results.bins:
      picture = grids.of_examples(results, b)
      if picture is not None:
        pictures[b] = f'grid_{b.label.replace(" ", "_").replace("/", "_")}.png'
        picture.save(new / pictures[b])
    text = markdown(results, published, about, pictures)
    (new / 'report.md').write_bytes(atomic.as_bytes(text))
    (new / 'report.html').write_bytes(atomic.as_bytes(page.page(results, published, about)))
    if folder.exists():
      folder.rename(_free_backup(folder))
  return folder


def check_folder(folder: str | os.PathLike) -> None:
  """Raises FileExistsError if this folder must not be replaced by a report.

  An empty folder or a report may be replaced, a folder with other files may not.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise FileExistsError(f'--output {folder} is a file: give a folder')
  if folder.is_dir() and any(folder.iterdir()) and not (folder / 'metrics.json').exists():
    raise FileExistsError(
      f'--output {folder} holds other files and no report: give a new folder, e.g. '
      f'{folder / "evaluation"}'
    )


def _free_backup(folder: pathlib.Path) -> pathlib.Path:
  path, count = folder.with_name(folder.name + '.bak'), 1
  while path.exists():
    count += 1
    path = folder.with_name(f'{folder.name}.bak{count}')
  return path


def to_json(
  results: Results, published: Sequence[Published], environment: Mapping[str, Any]
) -> dict[str, Any]:
  """The document of metrics.json."""
  stats = Statistics(results)
  rows = []
  for name in results.predictors:
    for b in results.bins:
      for metric in results.image_metrics:
        s = stats.summary(name, b, metric.name)
        if not s.n + s.infinite + s.undefined:
          continue
        rows.append(
          {
            'predictor': name,
            'bin': b.label,
            'metric': metric.name,
            'mean': _or_none(s.mean),
            'standard_error': _or_none(s.standard_error),
            'low': _or_none(s.low),
            'high': _or_none(s.high),
            'n': s.n,
            'infinite': s.infinite,
            'undefined': s.undefined,
          }
        )
  comparisons = [
    {
      'predictor': c.predictor,
      'baseline': c.baseline,
      'bin': c.bin.label,
      'metric': c.metric.name,
      'difference': _or_none(c.difference),
      'low': _or_none(c.low),
      'high': _or_none(c.high),
      'excludes_zero': c.excludes_zero,
      'verdict': c.verdict,
      'better': _or_none(c.better),
      'equal': _or_none(c.equal),
      'n': c.n,
      'left_out': c.left_out,
    }
    for c in stats.comparisons()
  ]
  return {
    'schema': SCHEMA,
    'protocol': results.protocol.description(),
    'deviations': results.deviations(),
    'dataset': {
      'name': results.dataset,
      'count': results.count,
      'height': results.size[0],
      'width': results.size[1],
      'skipped': [{'file': file, 'why': why} for file, why in results.skipped],
    },
    'masks': {'name': results.masks, 'seed': results.seed, 'sha256': results.mask_sha256},
    'bins': [
      dataclasses.asdict(b) | {'label': b.label, 'drawn': results.hole_share(b)}
      for b in results.bins
    ],
    'predictors': [{'name': n, 'kind': results.kind(n)} for n in results.predictors],
    'baseline': results.baseline,
    'environment': dict(environment),
    'notes': results.notes,
    'statistics': {
      'level': statistics.LEVEL,
      'method': 'percentile bootstrap over images, taken as independent',
      'resamples': statistics.RESAMPLES,
      'seed': statistics.SEED,
    },
    'results': rows,
    'comparisons': comparisons,
    'set_values': [
      dataclasses.asdict(v) | {'bin': v.bin.label, 'value': _or_none(v.value)}
      for v in results.set_values
    ],
    'not_computed': results.not_computed,
    'resources': {
      name: {k: _or_none(v) for k, v in costs.items()} for name, costs in results.resources.items()
    },
    'case_metric': results.case_metric,
    'pictures': [
      {'bin': e.bin.label, 'index': e.index, 'case': case, 'outputs': list(e.outputs)}
      for e, case in _pictures(results)
    ],
    'sources': results.sources,
    'published': [dict(r) for r in published],
  }


def _or_none(x: Any) -> Any:
  return None if isinstance(x, float) and not math.isfinite(x) else x


def per_image_csv(results: Results) -> str:
  """One line for each row, bin and image; the PSNR of a perfect output is 'inf'."""
  out = io.StringIO()
  lines = csv.writer(out, lineterminator='\n')
  names = [m.name for m in results.image_metrics]
  lines.writerow([*_FIRST_COLUMNS, *names])
  for r in results.records:
    values = [f'{r.values[n]:.8g}' if n in r.values else '' for n in names]
    share = f'{r.hole_share:.6f}'
    lines.writerow([results.protocol.id, r.predictor, r.bin.label, r.index, r.file, share, *values])
  return out.getvalue()


def _pictures(results: Results) -> list[tuple[Example, bool]]:
  """Examples, then cases (True)."""
  return [(e, False) for e in results.examples] + [(e, True) for e in results.cases]


def save_pictures(results: Results, path: pathlib.Path) -> None:
  """Writes the pictures, in the order of `pictures` in metrics.json; without any, no file."""
  pictures = {}
  for k, (e, _) in enumerate(_pictures(results)):
    # A photograph is the same in every bin.
    pictures.setdefault(f'truth/{e.index}', e.truth)
    pictures[f'{k}/mask'] = np.packbits(e.mask.astype(bool), axis=1)
    for j, output in enumerate(e.outputs.values()):
      output = output if output.dtype == np.uint8 else arrays.to_uint8(output)
      # The difference modulo 256: known pixels are 0, and compress to nothing.
      pictures[f'{k}/{j}'] = output - pictures[f'truth/{e.index}']
  if pictures:
    np.savez_compressed(path, **pictures)


def load(folder: str | os.PathLike) -> Report:
  """Reads a report of this version or of earlier ones (schema 1 and 2).

  Means, intervals and differences are computed again from per_image.csv.

  Raises:
    ReportError: the folder holds no report, a damaged one, or one of a later version.
  """
  folder = pathlib.Path(folder)
  document = _document(folder)
  try:
    return _read(folder, document)
  except (KeyError, TypeError, IndexError, AttributeError) as error:
    raise ReportError(
      f'{folder / METRICS} is not a whole report ({type(error).__name__}: {error}): evaluate again'
    ) from error


def _document(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / METRICS
  try:
    document = json.loads(path.read_text(encoding='utf-8'))
  except (FileNotFoundError, NotADirectoryError) as error:
    raise ReportError(
      f'{folder} holds no report ({METRICS} is missing): give the folder that evaluate wrote'
    ) from error
  except ValueError as error:
    raise ReportError(f'{path} is damaged ({error}): evaluate again') from error
  schema = document.get('schema') if isinstance(document, dict) else None
  if schema not in range(1, SCHEMA + 1):
    raise ReportError(
      f'{path} has the schema {schema!r}, this version reads 1 to {SCHEMA}: update jaxinpaint, or '
      'give a report that evaluate wrote'
    )
  return document


def _read(folder: pathlib.Path, document: dict[str, Any]) -> Report:
  measured = [Bin(**_known(Bin, b)) for b in document.get('bins', [])]
  protocol = _protocol(folder, document['protocol'], measured)
  if measured:
    bins = tuple(measured)
  else:
    labels = dict.fromkeys(r['bin'] for r in document['results'])
    own = {b.label: b for b in protocol.bins}
    bins = tuple(own[x] if x in own else protocols.parse_bins([x])[0] for x in labels)
  by_label = {b.label: b for b in bins}
  records = _records(folder, protocol, by_label)
  dataset, masks = document['dataset'], document['masks']
  rows = document.get('predictors')
  names = [p['name'] for p in rows] if rows else [r.predictor for r in records]
  examples, cases = _load_pictures(folder, document, by_label)
  results = Results(
    protocol=protocol,
    predictors=tuple(dict.fromkeys(names)),
    bins=bins,
    records=records,
    examples=examples,
    skipped=[(s['file'], s['why']) for s in dataset['skipped']],
    mask_sha256=masks['sha256'],
    seed=masks['seed'],
    size=(dataset['height'], dataset['width']),
    dataset=dataset['name'],
    masks=masks['name'],
    notes=document['notes'],
    set_values=[
      SetValue(v['predictor'], by_label[v['bin']], v['metric'], _number(v['value']), v['n'])
      for v in document.get('set_values', [])
    ],
    not_computed=document.get('not_computed', {}),
    kinds={p['name']: p['kind'] for p in rows or []},
    baseline=document.get('baseline', ''),
    resources={
      name: {k: _number(v) for k, v in some.items()}
      for name, some in document.get('resources', {}).items()
    },
    cases=cases,
    case_metric=document.get('case_metric', ''),
    sources=document.get('sources', []),
  )
  return Report(folder, results, document['published'], document['environment'])


def _number(x: Any) -> Any:
  return math.nan if x is None else x


def _known(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
  """Those fields of a document that this version's class has."""
  names = {f.name for f in dataclasses.fields(kind)}
  return {k: v for k, v in fields.items() if k in names}


def _protocol(
  folder: pathlib.Path, described: Mapping[str, Any], measured: Sequence[Bin]
) -> Protocol:
  """The protocol as the report has it; fields that are not in the report are as they are today."""
  fields = _known(Protocol, described)
  fields['metrics'] = tuple(Metric(**_known(Metric, m)) for m in described['metrics'])
  now = protocols.PROTOCOLS.get(described['id'])
  own = {b.label: b for b in [*(now.bins if now else ()), *measured]}
  # A report has only the labels of the bins.
  labels = [b if isinstance(b, str) else b['label'] for b in described['bins']]
  fields['bins'] = tuple(own[x] if x in own else protocols.parse_bins([x])[0] for x in labels)
  try:
    return dataclasses.replace(now, **fields) if now else Protocol(**fields)
  except (TypeError, ValueError) as error:
    raise ReportError(
      f'{folder / METRICS}: the protocol {described["id"]!r} cannot be read ({error})'
    ) from error


def _records(folder: pathlib.Path, protocol: Protocol, bins: Mapping[str, Bin]) -> list[Record]:
  path = folder / IMAGES
  try:
    with open(path, encoding='utf-8', newline='') as f:
      lines = list(csv.DictReader(f))
  except OSError as error:
    raise ReportError(
      f'{path} cannot be read ({error.strerror}): it belongs to {METRICS}; evaluate again'
    ) from error
  records = []
  for number, line in enumerate(lines, 2):
    values = {m.name: line[m.name] for m in protocol.metrics if line.get(m.name) not in (None, '')}
    try:
      records.append(
        Record(
          line['predictor'],
          bins[line['bin']],
          int(line['index']),
          line['file'],
          float(line['hole_share']),
          {name: float(value) for name, value in values.items()},
        )
      )
    except (KeyError, ValueError, TypeError) as error:
      raise ReportError(
        f'{path}, line {number} cannot be read ({type(error).__name__}: {error}): evaluate again'
      ) from error
  if not records:
    raise ReportError(f'{path} holds no images: evaluate again')
  return records


def _load_pictures(
  folder: pathlib.Path, document: Mapping[str, Any], bins: Mapping[str, Bin]
) -> tuple[list[Example], list[Example]]:
  """(examples, cases); empty if there is no file, which may be deleted to save space."""
  examples, cases = [], []
  path = folder / PICTURES
  if not document.get('pictures') or not path.exists():
    return examples, cases
  width = document['dataset']['width']
  try:
    with np.load(path, allow_pickle=False) as stored:
      for k, entry in enumerate(document['pictures']):
        truth = stored[f'truth/{entry["index"]}']
        example = Example(
          bins[entry['bin']],
          entry['index'],
          truth,
          np.unpackbits(stored[f'{k}/mask'], axis=1)[:, :width],
          {name: truth + stored[f'{k}/{j}'] for j, name in enumerate(entry['outputs'])},
        )
        (cases if entry['case'] else examples).append(example)
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise ReportError(
      f'{path} is damaged ({error}): remove it to go on without pictures'
    ) from error
  return examples, cases
