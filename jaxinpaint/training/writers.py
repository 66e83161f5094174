"""Where a run's numbers go: metrics.jsonl, TensorBoard event files and the terminal.

clu's metric writers need TensorFlow, so this module writes the event files with tensorboardX.
Only process 0 writes.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np
import tqdm
from absl import logging


class Writer:
  """Appends scalars and pictures of a workdir to metrics.jsonl and tb/.

  Args:
    workdir: of the run.
    active: False on all processes but the first: nothing is written.
  """

  def __init__(self, workdir: pathlib.Path, active: bool = True):
    """See the class."""
    self._active = active
    if active:
      # tensorboardX is slow to import; processes that write nothing do without it.
      from tensorboardX import SummaryWriter

      self._lines = open(workdir / 'metrics.jsonl', 'a', encoding='utf-8')
      self._events = SummaryWriter(str(workdir / 'tb'))

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes {name: number} at `step`; a number that is not finite is a string in the JSON."""
    if not self._active:
      return
    plain = {k: float(v) for k, v in values.items()}
    line = {'step': step, 'time': round(time.time(), 3)}
    line |= {k: v if math.isfinite(v) else repr(v) for k, v in plain.items()}
    self._lines.write(json.dumps(line) + '\n')
    self._lines.flush()
    for name, value in plain.items():
      self._events.add_scalar(name, value, step)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a picture, uint8 [H, W, 3]."""
    if self._active:
      self._events.add_image(name, image, step, dataformats='HWC')

  def flush(self) -> None:
    """Everything written so far is on disk afterwards."""
    if self._active:
      self._events.flush()

  def close(self) -> None:
    """Releases the files."""
    if self._active:
      self._lines.close()
      self._events.close()


class Progress:
  """A progress bar on a terminal, one line at a time in a log file.

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

  def show(self, step: int, values: Mapping[str, float], speed: Mapping[str, float]) -> None:
    """Shows the losses, the speed and the share of time spent waiting for data, and the time left.

    Args:
      step: steps done.
      values: {name: loss}.
      speed: 'speed/img_per_s' and 'speed/data_wait' (a share).
    """
    if not self._active:
      return
    shown = ' '.join(f'{k}={v:.4g}' for k, v in values.items())
    shown += f' {speed["speed/img_per_s"]:.1f} img/s, data wait {speed["speed/data_wait"]:.0%}'
    if self._bar is not None:
      self._bar.set_postfix_str(shown)
      return
    rate = (step - self._start) / max(time.monotonic() - self._begun, 1e-9)
    left = (self._total - step) / rate if rate else math.inf
    logging.info('step %d/%d  %s  %s left', step, self._total, shown, duration(left))

  def close(self) -> None:
    """Leaves the bar as it is."""
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
