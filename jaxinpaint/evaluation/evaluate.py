"""The evaluation loop: every row on the same images with the same holes."""

import concurrent.futures
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import jax
import numpy as np
import tqdm
from absl import logging

from jaxinpaint.evaluation import measure, predictors
from jaxinpaint.evaluation.journal import Entry, Journal, entries_from_json, entries_to_json
from jaxinpaint.evaluation.spec import EvaluationError, EvaluationSpec
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.report import extremes
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
  SetValue,
)
from jaxinpaint.runtime import atomic, processes

# Lossy compression changes known pixels by less than this, of 255.
_LOSSY = 64


def evaluate(
  spec: EvaluationSpec,
  *,
  journal: Journal | None = None,
  share: bool = False,
  examples: int = 4,
  cases: bool = False,
  progress: bool = True,
) -> Results:
  """Measures rows on images, each with one mask per bin.

  Predictors get the picture with its hole set to 0, so that none can look at the truth, in batches
  of exactly `spec.batch_size` (the last is filled up with copies, which are not measured), so that
  each network compiles once. The output is pasted into the known picture and rounded as the
  protocol says, then measured. The numbers do not depend on batch_size, as far as a row's outputs
  do not, nor on the number of processes, nor on interruptions.

  Args:
    spec: what is measured, on what, how. An image that cannot be read is named, skipped, counted.
    journal: of `journal.open_journal`: what it holds is not measured again.
    share: with several processes each measures a part of the images; all must call this, and all
      get the whole results. False: whoever calls it measures everything.
    examples: how many images of each bin are kept for the grids.
    cases: the best and worst images of each row are completed once more, for their pictures; with
      several processes the first has them.
    progress: logs a line, and shows a bar where stderr is a terminal.

  Raises:
    EvaluationError: a predictor returned another shape, changed known pixels, or returned NaN or
      infinity; no image could be read, or one could not and spec.on_unreadable is 'fail'.
  """
  spec = spec.with_networks()
  journal = journal or Journal()
  together = _Together(share)
  done = together.own(journal, range(spec.count))
  batches = _remaining(spec.count, spec.batch_size, done)
  bins = tuple(spec.on.masks)
  progress = progress and jax.process_index() == 0
  if progress:
    logging.info(
      'Evaluating %s on %d images, holes: %s.',
      ', '.join(spec.rows),
      spec.count,
      ', '.join(b.label for b in bins),
    )
    if done:
      logging.info(
        'Resuming: %d of %d images were measured before the interruption.', len(done), spec.count
      )
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    measurement = measure.Measurement(spec, pool)
    mine = batches[together.index :: together.count]
    left = sum(map(len, mine))
    bar = tqdm.tqdm(
      total=(left + len(done)) * len(bins),
      initial=len(done) * len(bins),
      unit='image',
      desc='evaluating' if together.count == 1 else f'process 1 of {together.count}',
      disable=None if progress else True,
    )
    with bar, together.errors():
      _run(measurement, mine, journal, bins, examples, spec.on_unreadable, bar)
    entries = together.entries(journal)
    if not any(not e.why for e in entries):
      first = entries[0]
      raise EvaluationError(
        f'none of the {spec.count} images could be read; the first: {first.file}: {first.why}'
      )
    sizes = {e.size for e in entries if not e.why}
    if len(sizes) > 1:
      raise EvaluationError(
        f'the images have the sizes {sorted(sizes)}: crop or resize all to one size'
      )
    results = Results(
      protocol=spec.protocol,
      predictors=tuple(spec.rows),
      bins=bins,
      records=_records(spec, entries),
      examples=_examples(spec, entries, journal, together, examples),
      skipped=[(e.file, e.why) for e in entries if e.why],
      mask_sha256=_mask_hash(spec.on.masks, entries, pool),
      seed=spec.on.seed,
      size=sizes.pop(),
      set_values=_set_values(spec, measurement, entries, journal, together),
      not_computed=_not_computed(spec),
      kinds={name: predictors.kind_of(row) for name, row in spec.rows.items()},
      notes=_known_pixels(spec, entries),
    )
    if cases and together.index == 0:
      extremes.collect(results, measurement.complete)
    return results


def _remaining(wanted: int, batch_size: int, done: set[int]) -> list[list[int]]:
  """Batches of the images that are not measured yet.

  Images are always divided in the same way, whatever was measured before and however many processes
  there are, so their numbers are always the same to the bit.
  """
  whole = (range(k, min(k + batch_size, wanted)) for k in range(0, wanted, batch_size))
  return [left for batch in whole if (left := [i for i in batch if i not in done])]


def _run(
  measurement: measure.Measurement,
  batches: Sequence[Sequence[int]],
  journal: Journal,
  bins: Sequence[Bin],
  examples: int,
  on_unreadable: str,
  bar: tqdm.tqdm,
) -> None:
  with concurrent.futures.ThreadPoolExecutor(1) as ahead:
    coming = [ahead.submit(measurement.read, b) for b in batches[:1]]
    for k, indices in enumerate(batches):
      batch = coming.pop().result()
      coming = [ahead.submit(measurement.read, b) for b in batches[k + 1 : k + 2]]
      for _, path, why in batch.unreadable:
        if on_unreadable == 'fail':
          raise EvaluationError(
            f'{path}: {why}: mend or remove it, or leave it out with --on_unreadable=skip'
          )
        logging.warning('Image left out of the evaluation: %s: %s', path, why)
      before = [e for i, e in journal.entries.items() if i < indices[0] and e.pictures is not None]
      room = any(sum(e.shares[k] is not None for e in before) < examples for k in range(len(bins)))
      measured = measurement.measure(batch, picture=room)
      journal.add(measured.entries, measured.features, measured.pictures)
      bar.update(len(indices) * len(bins))


class _Together:
  """What the processes of a shared evaluation tell each other; one process alone sends nothing."""

  def __init__(self, share: bool):
    self.count = jax.process_count() if share else 1
    self.index = jax.process_index() if share else 0

  def _gather(self, data: bytes) -> list[bytes]:
    return [data] if self.count == 1 else processes.gather(data)

  def own(self, journal: Journal, wanted: range) -> set[int]:
    """The images that were measured before; of each, only the first process keeps the entry."""
    journal.forget([i for i in journal.entries if i not in wanted])
    everyone = [json.loads(x) for x in self._gather(json.dumps(list(journal.entries)).encode())]
    journal.forget(set().union(*everyone[: self.index]) & journal.entries.keys())
    return set().union(*everyone)

  def errors(self) -> '_Errors':
    """A context: if one process raises in it, all raise after it, so that none waits for ever."""
    return _Errors(self._gather)

  def entries(self, journal: Journal) -> list[Entry]:
    """Entries of all images, in the order of the images."""
    own = entries_to_json(list(journal.entries.values())).encode()
    entries = [e for part in self._gather(own) for e in entries_from_json(part)]
    return sorted(entries, key=lambda e: e.index)

  def arrays(self, own: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """{index: array} of all processes."""
    if self.count == 1:
      return dict(own)
    file = io.BytesIO()
    keys = np.array(list(own), np.int64)
    np.savez(file, keys=keys, **({'rows': np.stack(list(own.values()))} if own else {}))
    by_index = {}
    for part in self._gather(file.getvalue()):
      with np.load(io.BytesIO(part), allow_pickle=False) as arrays:
        if len(arrays['keys']):
          by_index |= zip(arrays['keys'].tolist(), arrays['rows'], strict=True)
    return by_index


class _Errors:
  def __init__(self, gather: Callable[[bytes], list[bytes]]):
    self._gather = gather

  def __enter__(self) -> None:
    pass

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    if error is not None and not isinstance(error, Exception):
      return  # the process ends
    parts = self._gather(atomic.as_bytes(str(error or '')) + (b'.' if error else b''))
    if error is None:
      for k, text in enumerate(parts):
        if text:
          raise EvaluationError(f'process {k}: {text.decode()[:-1]}')


def _records(spec: EvaluationSpec, entries: Sequence[Entry]) -> list[Record]:
  return [
    Record(name, b, e.index, e.file, e.shares[k], dict(e.values[name][k]))
    for name, (k, b), e in itertools.product(spec.rows, enumerate(spec.on.masks), entries)
    if not e.why and e.shares[k] is not None
  ]


def _examples(
  spec: EvaluationSpec,
  entries: Sequence[Entry],
  journal: Journal,
  together: _Together,
  count: int,
) -> list[Example]:
  """The first images of each bin, with the outputs as they were measured."""
  examples = []
  for k, b in enumerate(spec.on.masks):
    first = [e.index for e in entries if not e.why and e.shares[k] is not None][:count]
    pictures = {i: journal.pictures(i) for i in first if i in journal.entries}
    get = lambda key, pictures=pictures: together.arrays({i: p[key] for i, p in pictures.items()})
    if not first:
      continue
    truths, masks = get('truth'), get(f'mask {k}')
    outputs = {name: get(f'output {k} {r}') for r, name in enumerate(spec.rows)}
    examples += [
      Example(b, i, truths[i], masks[i], {name: of[i] for name, of in outputs.items()})
      for i in first
    ]
  return examples


def _mask_hash(
  masks_by_bin: sets.MaskSet,
  entries: Sequence[Entry],
  pool: concurrent.futures.Executor,
) -> str:
  """SHA-256 of the masks of all measured images.

  The masks are drawn again: an earlier attempt or another process may have drawn them before.
  """
  digest = sets.Hash(tuple(masks_by_bin))
  for k, (b, mask) in enumerate(masks_by_bin.items()):
    indices = [e.index for e in entries if not e.why and e.shares[k] is not None]
    for start in range(0, len(indices), 256):
      part = indices[start : start + 256]
      for i, hole in zip(part, pool.map(mask, part), strict=True):
        digest.add(b, i, np.asarray(hole))
  return digest.hexdigest()


def _set_values(
  spec: EvaluationSpec,
  measurement: measure.Measurement,
  entries: Sequence[Entry],
  journal: Journal,
  together: _Together,
) -> list[SetValue]:
  """Numbers of whole sets, from the features of all images in their order."""
  metrics = measurement.set_metrics
  if not metrics:
    return []

  def features(place: int, k: int) -> np.ndarray:
    here = [e.index for e in entries if not e.why and e.shares[k] is not None]
    own = {i: journal.features(i)[place] for i in here if i in journal.entries}
    rows = together.arrays(own)
    return np.stack([rows[i] for i in here])

  values = []
  for k, b in enumerate(spec.on.masks):
    n = sum(not e.why and e.shares[k] is not None for e in entries)
    if n < 2:
      logging.warning('%s needs two images, %s %% has %d.', metrics[0].label, b.label, n)
      continue
    real = features(0, k)
    for name in spec.rows:
      of: dict[str, np.ndarray] = {}
      for m in metrics:
        v = measure.variant_of(m, spec.protocol)
        if v not in of:
          of[v] = features(measurement.places[v, name, b], k)
        values.append(SetValue(name, b, m.name, float(spec.networks.set_value(m, real, of[v])), n))
  return values


def _not_computed(spec: EvaluationSpec) -> dict[str, str]:
  reasons = dict(spec.networks.missing) if spec.networks else {}
  sampling = [name for name, row in spec.rows.items() if predictors.has_samples(row)]
  for m in spec.protocol.metrics:
    if measure.kind_of(m) != 'samples' or m.name in reasons:
      continue
    if not sampling:
      reasons[m.name] = 'none of the rows draws random numbers: each has one output for an image'
    elif spec.samples < 2:
      reasons[m.name] = 'it compares several outputs for one image: pass --samples 5'
  return reasons


def _known_pixels(spec: EvaluationSpec, entries: Sequence[Entry]) -> dict[str, str]:
  """{'known pixels of NAME': how much known pixels of stored outputs differ from the truth}."""
  notes = {}
  replaced = 'replaced by the truth before it is measured'
  for name, row in spec.rows.items():
    if not predictors.is_stored(row):
      continue
    total = sum(s is not None for e in entries for s in e.shares)
    changes = [x for e in entries for x in e.changed.get(name, ()) if x]
    if changes:
      done = replaced if spec.protocol.composite else 'measured too'
      notes[f'known pixels of {name}'] = (
        f'differ from the truth in {len(changes)} of {total} outputs, by up to {max(changes)} of '
        f'255; {done}' + ('' if max(changes) < _LOSSY else '. Were they made with these holes?')
      )
      logging.warning('%s: known pixels %s', name, notes[f'known pixels of {name}'])
  return notes
