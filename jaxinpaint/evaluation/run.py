"""From an `EvaluationSpec` to a folder: measured, taken up again after a kill, reported."""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from jaxinpaint.evaluation import journal
from jaxinpaint.evaluation.evaluate import evaluate
from jaxinpaint.evaluation.spec import EvaluationSpec
from jaxinpaint.report import files, published, tables
from jaxinpaint.report.results import Results
from jaxinpaint.runtime import locks, processes


def evaluate_and_report(
  spec: EvaluationSpec, output_dir: str | os.PathLike, *, resume: bool = True
) -> Results:
  """`evaluate`, then the report in `output_dir` and the table on the terminal.

  An evaluation that was interrupted goes on where it was, if its fingerprint has not changed. All
  processes call this; the first writes the report.

  Args:
    spec: what is measured.
    output_dir: gets the report; an earlier one there is kept as NAME.bak.
    resume: False: everything is measured again.

  Raises:
    EvaluationError: see `evaluate`.
    FileExistsError: output_dir holds other things than a report.
    locks.InUse: another evaluation writes there.
  """
  files.check_folder(output_dir)
  spec = spec.with_networks()
  about = spec.about
  dataset = about.published
  if dataset is None:
    dataset = published.nearest_dataset(spec.on.dataset, spec.protocol.id)
  beside = published.published_rows(spec.protocol.id, dataset) if dataset else []
  fingerprint = spec.fingerprint()
  with _alone(output_dir):
    kept = _open_journal(journal.place(output_dir), fingerprint, resume)
    results = evaluate(spec, journal=kept, share=True, cases=True)
    results.dataset, results.masks = spec.on.dataset, spec.on.masks_name
    results.baseline, results.resources = about.baseline, dict(about.resources)
    origins = dict(spec.networks.origins) if spec.networks else {}
    results.notes = dict(about.notes) | origins | results.notes
    if jax.process_index() == 0:
      folder = files.write(results, output_dir, beside)
      print(tables.terminal_table(results, beside))
      print(f'report: {folder / "report.html"}', flush=True)
    processes.wait()
    kept.remove()
  return results


def _alone(output_dir: str | os.PathLike) -> contextlib.AbstractContextManager:
  """Two evaluations into one folder would share a journal."""
  if jax.process_index() != 0:
    return contextlib.nullcontext()
  output = pathlib.Path(output_dir).absolute()
  output.parent.mkdir(parents=True, exist_ok=True)
  return locks.hold(output.with_name(f'.{output.name}.lock'), f'--output {output_dir}')


def _open_journal(
  folder: pathlib.Path, fingerprint: Mapping[str, Any] | None, resume: bool
) -> journal.Journal:
  """The first process decides what becomes of an earlier attempt, before the others look."""
  first = jax.process_index() == 0
  kept = journal.open_journal(folder, fingerprint, resume) if first else None
  processes.wait()
  return kept or journal.open_journal(folder, fingerprint, True)
