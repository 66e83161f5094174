"""Where a run's numbers go: metrics.jsonl, TensorBoard event files and the terminal.

clu's metric writers need TensorFlow, so this module writes the event files with tensorboardX.
Only process 0 writes. A run that resumes at step n removes what was written for later steps, in
both kinds of files. So each step is there once, however often the run was killed.
"""

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np
import tqdm
from absl import logging

from jaxinpaint.runtime import atomic


class Writer:
  """Appends scalars and pictures to metrics.jsonl and tb/ in a workdir.

  If an earlier start got further than its last checkpoint, metrics.jsonl has lines of steps after
  `start`. They move to metrics.dropped.jsonl. An incomplete last line, left by a kill, is removed.
  TensorBoard is told to forget such steps.

  Args:
    workdir: of the run.
    active: False on all processes but the first: nothing is written.
    start: steps done.
  """

  def __init__(self, workdir: pathlib.Path, active: bool = True, start: int = 0):
    """See the class."""
    self._active = active
    if active:
      self._path = workdir / 'metrics.jsonl'
      self._events = _Events(workdir / 'tb')
      self._open(start)

  def _open(self, start: int) -> None:
    if _forget(self._path, start) or start:
      self._events.forget(start + 1)
    self._lines = open(self._path, 'a', encoding='utf-8')

  def rewind(self, start: int) -> None:
    """The run went back to step `start`."""
    if self._active:
      self._lines.close()
      self._open(start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes {name: number} at `step`; a number that is not finite is a string in the JSON."""
    if not self._active:
      return
    plain = {k: float(v) for k, v in values.items()}
    line: dict[str, float | str] = {'step': step, 'time': round(time.time(), 3)}
    line |= {k: v if math.isfinite(v) else repr(v) for k, v in plain.items()}
    self._lines.write(json.dumps(line) + '\n')
    self._lines.flush()
    self._events.scalars(step, plain)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a picture, uint8 [H, W, 3]."""
    if self._active:
      self._events.image(step, name, image)

  def flush(self) -> None:
    """Puts everything written so far on disk."""
    if self._active:
      self._lines.flush()
      os.fsync(self._lines.fileno())
      self._events.flush()

  def close(self) -> None:
    """Closes the files."""
    if self._active:
      self._lines.close()
      self._events.close()


def _forget(path: pathlib.Path, start: int) -> bool:
  """Removes broken lines and lines of steps after `start`; returns whether there were any."""
  if not path.exists():
    return False
  kept: list[bytes] = []
  dropped: list[bytes] = []
  broken = False
  for line in path.read_bytes().splitlines(keepends=True):
    try:
      late = json.loads(line)['step'] > start or not line.endswith(b'\n')
    except (ValueError, KeyError, TypeError):
      broken = True
      continue
    (dropped if late else kept).append(line)
  if not dropped and not broken:
    return False
  if dropped:
    with open(path.with_name('metrics.dropped.jsonl'), 'ab') as file:
      file.writelines(line.rstrip(b'\n') + b'\n' for line in dropped)
  atomic.write(path, b''.join(kept))
  return True


class _Events:
  """One event file, written directly, without the thread and queue of tensorboardX's SummaryWriter.

  When the disk is full, that thread ends, the queue fills up and the run hangs. And a kill loses
  what is in the queue.
  """

  def __init__(self, folder: pathlib.Path):
    # tensorboardX is slow to import, so only the process that writes imports it.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    folder.mkdir(exist_ok=True)
    self._summary, self._proto = summary, event_pb2
    self._file = event_file_writer.EventsWriter(str(folder / 'events'), f'.{os.getpid()}')

  def _write(self, step: int, **content: object) -> None:
    self._file.write_event(self._proto.Event(wall_time=time.time(), step=step, **content))

  def forget(self, step: int) -> None:
    """Tells TensorBoard to drop this step and later ones, from this file and earlier ones."""
    log = self._proto.SessionLog(status=self._proto.SessionLog.START)
    self._write(step, session_log=log)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._write(step, summary=self._summary.scalar(name, value))

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._write(step, summary=self._summary.image(name, image, dataformats='HWC'))

  def flush(self) -> None:
    self._file.flush()

  def close(self) -> None:
    self._file.close()


# Of a line, without the time and place that the log puts before it.
_COLUMNS = 159


class Progress:
  """A progress bar on a terminal; in a log file, single lines.

  Args:
    total: steps of the run.
    start: steps done already.
    active: False: silent.
  """

  def __init__(self, total: int, start: int = 0, active: bool = True):
    """See the class."""
    self._active = active
    self._tty = sys.stderr.isatty()
    self._total = total
    self._start, self._begun = start, time.monotonic()
    self._bar = None
    if active and self._tty:
      self._bar = tqdm.tqdm(total=total, initial=start, unit='step', dynamic_ncols=True)

  def step(self) -> None:
    """One more step is done."""
    if self._bar is not None:
      self._bar.update()

  def rewind(self, step: int) -> None:
    """The run went back to `step`."""
    self._start, self._begun = step, time.monotonic()
    if self._bar is not None:
      self._bar.n = step
      self._bar.refresh()

  def skip(self, seconds: float) -> None:
    """Excludes this compilation time, so that the time left is that of steps and evaluations."""
    self._begun += seconds

  def show(self, step: int, values: Mapping[str, float], speed: Mapping[str, float]) -> None:
    """Shows the losses, the speed and the time left in a line of less than 160 columns.

    Args:
      step: steps done.
      values: {name: loss}.
      speed: the speed/, memory/ and time/ numbers of docs/monitoring.md.
    """
    if not self._active:
      return
    if self._bar is not None:
      self._bar.set_postfix_str(_line(values, speed, _COLUMNS - 60))  # the bar and its own times
      return
    rate = (step - self._start) / max(time.monotonic() - self._begun, 1e-9)
    left = duration((self._total - step) / rate if rate else math.inf)
    begin, end = f'step {step}/{self._total}  ', f', {left} left'
    logging.info('%s', begin + _line(values, speed, _COLUMNS - len(begin + end)) + end)

  def close(self) -> None:
    """Closes the bar and leaves it on the terminal."""
    if self._bar is not None:
      self._bar.close()


def duration(seconds: float) -> str:
  """3725 -> '1 h 02 min', 65 -> '1 min 05 s'."""
  if not math.isfinite(seconds):
    return 'unknown time'
  minutes, rest = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes:02d} min'
  return f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'


def _line(values: Mapping[str, float], speed: Mapping[str, float], columns: int) -> str:
  """'generator=0.12  8.1 img/s, 980 ms (p95 1010), data 1%, 2.1 GB', with the losses that fit."""
  images, each = speed['speed/img_per_s'], speed['speed/img_per_s_per_device']
  parts = [f'{images:.4g} img/s' + (f' ({each:.3g} per device)' if each < 0.99 * images else '')]
  parts += [
    f'{speed["speed/step_ms_median"]:.4g} ms (p95 {speed["speed/step_ms_p95"]:.4g})',
    f'data wait {speed["speed/data_wait"]:.0%}',
  ]
  if 'speed/mfu' in speed:
    parts.append(f'MFU {speed["speed/mfu"]:.1%}')
  if 'memory/peak_gb' in speed:
    parts.append(f'{speed["memory/peak_gb"]:.3g} GB')
  elif 'memory/host_peak_gb' in speed:
    parts.append(f'{speed["memory/host_peak_gb"]:.3g} GB of the host')
  end = '  ' + ', '.join(parts)
  losses = ' '.join(f'{k}={v:.4g}' for k, v in values.items())
  if len(losses) + len(end) > columns:
    room = max(columns - len(end) - 4, 0)
    losses = losses[:room].rpartition(' ')[0] + ' ...'
  return losses + end
