"""The runs in some folders, which may come later."""

import os
import pathlib
import threading
from collections.abc import Sequence

from jaxinpaint.watching.run import Run, is_run

MOST = 24  # runs that are shown; of more, those that wrote last


class Runs:
  """Workdirs, and folders that hold workdirs.

  A folder that is no run and holds runs stands for these, also for those that begin later. What is
  not there yet is waited for. A run keeps its number for ever.

  Args:
    folders: given by the user.
  """

  def __init__(self, folders: Sequence[str | os.PathLike]):
    """See the class."""
    self._folders = [pathlib.Path(folder) for folder in folders]
    self._lock = threading.Lock()
    self._known: dict[pathlib.Path, tuple[int, Run]] = {}
    self.left_out = 0

  def find(self) -> dict[int, Run]:
    """{number: run} of now, in the order of the command line and of their names."""
    with self._lock:
      named = {}
      for folder in self._folders:
        named |= {path: name for path, name in _below(folder) if path not in named}
      newest = sorted(named, key=_time, reverse=True)
      self.left_out = max(len(newest) - MOST, 0)
      shown = {}
      for path in named:
        if path in newest[:MOST]:
          number, run = self._known.setdefault(path, (len(self._known), Run(path, named[path])))
          shown[number] = run
      return shown

  def get(self, number: int) -> Run | None:
    """The run of a number that `find` gave."""
    with self._lock:
      return dict(self._known.values()).get(number)


def _below(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  """[(workdir, name)] that a folder stands for: itself, or the runs in it."""
  if not is_run(folder):
    try:
      inside = sorted(path for path in folder.iterdir() if path.is_dir() and is_run(path))
    except OSError:
      inside = []
    if inside:
      return [(path, path.name) for path in inside]
  return [(folder, folder.name or folder.absolute().name or str(folder))]


def _time(folder: pathlib.Path) -> float:
  for name in ('metrics.jsonl', '.'):
    try:
      return (folder / name).stat().st_mtime
    except OSError:
      continue
  return 0.0
