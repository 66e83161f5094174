"""One run, as far as its workdir tells: what `training` writes there, read again and again."""

import contextlib
import json
import os
import pathlib
import re
import socket
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxinpaint.watching.series import Metrics

# States of a run.
WAITING = 'waiting'  # the folder is not there, or nothing of a run is in it
STARTING = 'starting'  # no step of this start is done: it loads, traces, compiles
RUNNING = 'running'
FINISHED = 'finished'  # every step is done, or an early stop
STOPPED = 'stopped'  # by a signal, and saved
FAILED = 'failed'  # by an error, which it noted
KILLED = 'killed'  # its process is gone, without a note
SILENT = 'silent'  # nothing new for long; whether its process lives cannot be seen from here

_MARKS = ('config.json', 'metrics.jsonl', 'starts.jsonl', 'checkpoints')  # of a run's folder
_PATIENCE = 300.0  # seconds without a sign of life, or three times the usual distance of rows ...
_START_PATIENCE = 3600.0  # ... and before the first row: compilation writes nothing
_LOOK_SECONDS = 1.0  # between two looks at the files, however many pages ask
_READ_SECONDS = 1.0  # of metrics.jsonl at one look
_MOST_FAULTS, _MOST_STARTS = 200, 50
_PNG_BEGIN, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


def is_run(folder: pathlib.Path) -> bool:
  """Whether a training run has written into this folder."""
  return any((folder / mark).exists() for mark in _MARKS)


class Run:
  """A workdir; threads may share it.

  Args:
    folder: the workdir; need not exist.
    name: for people.
    clock: seconds since 1970.
  """

  def __init__(
    self, folder: pathlib.Path, name: str, clock: Callable[[], float] = time.time
  ) -> None:
    """See the class."""
    self.folder, self.name, self._clock = folder, name, clock
    self._lock = threading.Lock()
    self._metrics = Metrics(folder / 'metrics.jsonl')
    self._files: dict[pathlib.Path, tuple[tuple[int, int], Any]] = {}
    self._sizes: dict[str, int] = {}  # of checkpoints
    self._series: tuple[Any, dict[str, Any]] = (None, {})  # of these rows
    self._looked = -float('inf')
    self._document: dict[str, Any] = {}

  def read(self, whole: bool = False) -> dict[str, Any]:
    """The run as JSON's types; `version` changes with all but 'seen', 'read_for' and 'left'.

    Args:
      whole: all of metrics.jsonl at once, instead of a part at each look.
    """
    with self._lock:
      if whole or time.monotonic() - self._looked >= _LOOK_SECONDS:
        self._document = self._look(whole)
        self._looked = time.monotonic()
      return self._document

  def sample(self, step: int) -> bytes | None:
    """The PNG file of the grid of a step; None: there is none, or it is not whole yet."""
    name, _ = self._samples().get(step, ('', 0))
    if not name:
      return None
    with contextlib.suppress(OSError):
      data = (self.folder / 'samples' / name).read_bytes()
      if data.startswith(_PNG_BEGIN) and data.endswith(_PNG_END):
        return data
    return None

  def _look(self, whole: bool) -> dict[str, Any]:
    problem = ''
    try:
      self._metrics.poll(float('inf') if whole else _READ_SECONDS)
    except OSError as error:
      problem = f'metrics.jsonl cannot be read ({error.strerror or error})'
    config = self._json('config.json')
    events = self._events()
    starts = [e for e in events if e['event'] == 'start']
    checkpoints, broken = self._checkpoints()
    metrics = self._metrics
    document: dict[str, Any] = {
      'name': self.name,
      'folder': str(self.folder),
      'step': metrics.step,
      'total': self._total(starts, config),
      'config': dict(_flat(config)) if isinstance(config, dict) else {},
      'environment': self._json('environment.json') or {},
      'samples': [{'step': step, 'at': at} for step, (_, at) in sorted(self._samples().items())],
      'checkpoints': checkpoints,
      'starts': starts[-_MOST_STARTS:],
      'faults': self._faults(events, broken)[-_MOST_FAULTS:],
      'evaluation': self._evaluation(),
      'broken_lines': metrics.broken,
      'names_left_out': len(metrics.left_out),
      'behind': metrics.behind,
      'problem': problem,
    }
    state, why = self._state(events, document['total'])
    document |= {'state': state, 'why': why}
    rows = (metrics.rows, metrics.broken, metrics.time)
    if self._series[0] != rows:
      self._series = rows, {name: s.document() for name, s in metrics.series.items()}
    text = json.dumps([document, rows], sort_keys=True)
    document |= {'version': f'{zlib.crc32(text.encode()):08x}', 'series': self._series[1]}
    last = self._last_sign()
    pace = metrics.seconds_per_step(starts[-1]['time'] if starts else 0.0)
    document['seen'] = None if last is None else max(0.0, round(self._clock() - last, 1))
    document['left'] = None
    if pace and document['total'] and state == RUNNING:
      document['left'] = max(document['total'] - (metrics.step or 0), 0) * pace
    return document

  def _total(self, starts: list[dict[str, Any]], config: Any) -> int | None:
    """Steps of the whole run."""
    if starts and isinstance(starts[-1].get('steps'), int):
      return starts[-1]['steps']
    with contextlib.suppress(KeyError, TypeError, ValueError):  # of a version without that note
      return int(config['training']['steps'])
    return None

  def _state(self, events: list[dict[str, Any]], total: int | None) -> tuple[str, str]:
    """The state, and a sentence about it or ''."""
    if not is_run(self.folder):
      return WAITING, ''
    alive, locked = self._holder()
    last = events[-1] if events else None
    if last and last['event'] == 'ended' and not (alive and locked > last['time']):
      how = {'finished': FINISHED, 'early stop': FINISHED, 'stopped': STOPPED}
      return how.get(last['how'], FAILED), str(last.get('why', ''))
    if alive is False:
      return KILLED, ''
    since = max(locked, last['time'] if last else 0.0)
    begun = RUNNING if (self._metrics.time or 0.0) > since else STARTING
    if alive:
      return begun, ''
    if not locked and total and (self._metrics.step or 0) >= total:
      return FINISHED, ''  # of a version that did not note its end
    sign, pace = self._last_sign(), self._metrics.seconds_per_step(0.0) or 0.0
    every = pace * _distance(self._metrics)
    patience = max(_START_PATIENCE if begun == STARTING else _PATIENCE, 3 * every)
    quiet = sign is None or self._clock() - sign > patience
    return (SILENT if quiet else begun), ''

  def _holder(self) -> tuple[bool | None, float]:
    """Whether the process that holds the run's lock lives, and since when.

    None where that cannot be seen: there is no lock, or it is another machine's. The lock itself is
    not touched.
    """
    try:
      words = (self.folder / '.lock').read_text(encoding='utf-8')
      since = (self.folder / '.lock').stat().st_mtime
    except (OSError, ValueError):
      return None, 0.0
    match = re.fullmatch(r'process (\d+) on (.+)', words.strip())
    if not match or match[2] != socket.gethostname():
      return None, since
    try:
      os.kill(int(match[1]), 0)
    except ProcessLookupError:
      return False, since
    except (PermissionError, OverflowError):  # another user's; no process has such a number
      pass
    return True, since

  def _last_sign(self) -> float | None:
    """When something was last written, seconds since 1970."""
    names = ('metrics.jsonl', 'starts.jsonl', 'config.json', 'samples', 'checkpoints', 'sick')
    times = []
    for name in names:
      with contextlib.suppress(OSError):
        times.append((self.folder / name).stat().st_mtime)
    return max(times, default=None)

  def _samples(self) -> dict[int, tuple[str, int]]:
    """{step: (name of its file, when it was written in milliseconds)}."""
    found = {}
    for name, status in _listed(self.folder / 'samples'):
      match = re.fullmatch(r'(\d{1,18})\.png', name)
      if match:
        found[int(match[1])] = (name, status.st_mtime_ns // 1_000_000)
    return found

  def _checkpoints(self) -> tuple[list[dict[str, Any]], list[tuple[str, float]]]:
    """The whole ones, in the order of their steps; names and times of those set aside."""
    whole, broken = [], []
    for name, status in _listed(self.folder / 'checkpoints'):
      if not stat.S_ISDIR(status.st_mode):
        continue
      if re.fullmatch(r'\d{1,18}', name):
        if name not in self._sizes:  # a checkpoint does not change
          self._sizes[name] = _size(self.folder / 'checkpoints' / name)
        size = self._sizes[name]
        whole.append({'step': int(name), 'time': round(status.st_mtime), 'bytes': size})
      elif name.startswith('broken-'):
        broken.append((name, status.st_mtime))
    return sorted(whole, key=lambda c: c['step']), sorted(broken)

  def _events(self) -> list[dict[str, Any]]:
    """The starts and ends in starts.jsonl, in the order of the file."""
    events = []
    for line in self._cached('starts.jsonl', lambda data: data.splitlines()) or ():
      with contextlib.suppress(ValueError, KeyError, TypeError):
        event = json.loads(line)
        if event['event'] in ('start', 'ended'):
          events.append(event | {'time': float(event['time']), 'step': int(event['step'])})
    return events

  def _faults(
    self, events: list[dict[str, Any]], broken: list[tuple[str, float]]
  ) -> list[dict[str, Any]]:
    """[{'time', 'step', 'kind', 'text'}] in the order of time.

    The kinds are 'error' (the text is its sentence), 'stopped', 'killed' (a start ended without a
    note), 'returned' (to a checkpoint, after numbers that were not finite), 'sick' (a step whose
    numbers were not finite; the text names them) and 'broken' (a checkpoint that was set aside; the
    text is its name).
    """
    faults = []
    fault = lambda time, step, kind, text='': faults.append(
      {'time': time, 'step': step, 'kind': kind, 'text': text}
    )
    for k, event in enumerate(events):
      if event['event'] == 'ended':
        if event['how'] not in ('finished', 'early stop'):
          kind = 'stopped' if event['how'] == 'stopped' else 'error'
          fault(event['time'], event['step'], kind, str(event.get('why', '')))
      elif event.get('returned'):
        fault(event['time'], event['step'], 'returned')
      elif k and events[k - 1]['event'] == 'start' and 'steps' in events[k - 1]:
        fault(event['time'], event['step'], 'killed')
    for name, _ in _listed(self.folder / 'sick'):
      report = self._json(f'sick/{name}/report.json')
      if isinstance(report, dict) and isinstance(report.get('step'), int):
        when = self._files[self.folder / f'sick/{name}/report.json'][0][1] / 1e9
        terms, values = report.get('sick') or [], report.get('terms') or {}
        text = ', '.join(f'{term} = {values.get(term, "?")}' for term in terms[:8])
        fault(when, report['step'], 'sick', text)
    for name, when in broken:
      fault(when, None, 'broken', name)
    return sorted(faults, key=lambda f: f['time'])

  def _evaluation(self) -> dict[str, Any] | None:
    """The means of the newest evaluation of a result: {'step', 'metrics', 'bins', 'rows'}."""
    steps = [int(name) for name, _ in _listed(self.folder / 'evaluation') if name.isdecimal()]
    for step in sorted(steps, reverse=True):
      document = self._json(f'evaluation/{step}/metrics.json')
      with contextlib.suppress(KeyError, TypeError):
        means = {(r['predictor'], r['bin'], r['metric']): r['mean'] for r in document['results']}
        metrics, bins = document['protocol']['metrics'], [b['label'] for b in document['bins']]
        return {
          'step': step,
          'count': document['dataset']['count'],
          'metrics': [{k: m[k] for k in ('label', 'better', 'digits')} for m in metrics],
          'bins': bins,
          'rows': [
            {
              'name': row['name'],
              'kind': row['kind'],
              'means': [[means.get((row['name'], b, m['name'])) for m in metrics] for b in bins],
            }
            for row in document['predictors']
          ],
        }
    return None

  def _json(self, name: str) -> Any:
    """The content of a JSON file of the workdir; None: there is none, or it is no JSON."""

    def parse(data: bytes) -> Any:
      try:
        return json.loads(data)
      except ValueError:
        return None

    return self._cached(name, parse)

  def _cached(self, name: str, parse: Callable[[bytes], Any]) -> Any:
    """What `parse` makes of a file; read again only when its size or its time is another."""
    path = self.folder / name
    try:
      status = path.stat()
      seen = (status.st_size, status.st_mtime_ns)
      if path not in self._files or self._files[path][0] != seen:
        self._files[path] = (seen, parse(path.read_bytes()))
    except OSError:
      self._files.pop(path, None)
      return None
    return self._files[path][1]


def _distance(metrics: Metrics) -> int:
  """Steps between the last two rows of the series that has most of them."""
  steps = max((s.document()['steps'][-2:] for s in metrics.series.values()), key=len, default=[])
  return steps[1] - steps[0] if len(steps) == 2 else 0


def _listed(folder: pathlib.Path) -> list[tuple[str, os.stat_result]]:
  """Names and states of what is in a folder; [] where it cannot be read."""
  found = []
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      with contextlib.suppress(OSError):  # it was renamed meanwhile
        found.append((entry.name, entry.stat()))
  return found


def _size(folder: pathlib.Path) -> int:
  """Bytes of all files in a folder."""
  total = 0
  for place, _, names in os.walk(folder):
    for name in names:
      with contextlib.suppress(OSError):
        total += os.lstat(os.path.join(place, name)).st_size
  return total


def _flat(tree: dict[str, Any], before: str = '') -> Iterator[tuple[str, Any]]:
  """('data.size', 64), ..."""
  for name, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _flat(value, f'{before}{name}.')
    else:
      yield f'{before}{name}', value
