"""Finished measurements of costs in a file, so that an interrupted study does not repeat them.

  kept = Kept(folder / 'costs.json', machine)
  lines = kept.find('predict', job)          None: it has to be measured
  kept.add('predict', job, lines)

A measurement holds for one machine with one set of versions. Those of others stay in the file, and
are not used.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from jaxinpaint.runtime import atomic

Lines = Sequence[Mapping[str, Any]]  # of a process of `cost.costs`


class Kept:
  """The measurements of a file, which need not be there yet."""

  def __init__(self, file: pathlib.Path, machine: Mapping[str, Any], *, resume: bool = True):
    """Reads the file, and says in one line what of it counts.

    Args:
      file: its folder is made when there is something to write.
      machine: JSON-able: hardware, versions and settings that a cost depends on.
      resume: False: what the file holds of this machine is measured again.

    Raises:
      ValueError: the file is not of measurements.
    """
    self._file, self._machine = file, json.loads(json.dumps(machine))
    self._entries: list[dict[str, Any]] = []
    if not file.exists():
      return
    try:
      self._entries = json.loads(file.read_text(encoding='utf-8'))
      own = [entry for entry in self._entries if entry['machine'] == self._machine]
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f'{file} does not hold measurements of costs ({error}): remove it, and they are made again'
      ) from error
    others = len(self._entries) - len(own)
    if not resume:
      self._entries = [entry for entry in self._entries if entry not in own]
    done = 'used again' if resume else 'repeated, as --noresume asks'
    logging.info(
      '%s: %d finished measurements of costs are %s; %d are of another machine or version.',
      file, len(own), done, others,
    )  # fmt: skip

  def find(self, what: str, job: Mapping[str, Any]) -> Lines | None:
    """What a process of `cost.costs` said on this machine for the same job; None: nothing yet."""
    wanted = self._entry(what, job)
    for entry in self._entries:
      if wanted == {k: v for k, v in entry.items() if k != 'lines'}:
        return entry['lines']
    return None

  def add(self, what: str, job: Mapping[str, Any], lines: Lines) -> None:
    """Keeps what a process said that ended well.

    Raises:
      OSError: the file cannot be written.
    """
    self._entries.append(self._entry(what, job) | {'lines': list(lines)})
    self._file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(self._file, json.dumps(self._entries, indent=1) + '\n')

  def _entry(self, what: str, job: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({'what': what, 'job': job, 'machine': self._machine}))
