import dataclasses
import math

import numpy as np
import pytest

from jaxinpaint.evaluation import (
  classical,
  journal,
  run,
)
from jaxinpaint.evaluation.journal import Entry, Journal, open_journal
from jaxinpaint.evaluation.spec import EvaluationSpec, MaskedImages
from jaxinpaint.masks import sets
from jaxinpaint.metrics import protocols

BINS = protocols.parse_bins(['10-20', '20-40'])
PROTOCOL = protocols.get('seed000')


def entries(*indices):
  return [
    Entry(
      index=i,
      file=f'{i}.png',
      size=(4, 6),
      shares=(0.1 + i / 7, None),
      values={'a': [{'psnr': math.inf, 'ssim': 1 / (i + 3)}, {}]},
      features=k,
      pictures=k,
    )
    for k, i in enumerate(indices)
  ]


def test_entries_come_back_to_the_bit():
  found = entries(0, 5) + [Entry(index=3, file='ü.png', why='truncated')]
  assert journal.entries_from_json(journal.entries_to_json(found)) == found
  nan = [dataclasses.replace(found[0], values={'a': [{'psnr': math.nan}, {}]})]
  (back,) = journal.entries_from_json(journal.entries_to_json(nan))
  assert math.isnan(back.values['a'][0]['psnr'])
  for torn in ('[{"index": 3, "fi', '[{"index": 3}]', '[{"colour": 3}]', ''):
    with pytest.raises(ValueError):
      journal.entries_from_json(torn)


def filled(folder, fingerprint):
  """Two batches of two images, with arrays."""
  kept = open_journal(folder, fingerprint, True)
  rng = np.random.default_rng(0)
  for batch in ((0, 1), (4, 5)):
    kept.add(
      entries(*batch),
      rng.normal(size=(2, 3, 2048)).astype(np.float32),
      {'truth': rng.integers(0, 255, (2, 4, 6, 3), np.uint8)},
    )
  return kept


def test_a_journal_is_read_again(tmp_path):
  kept = filled(tmp_path / 'j', {'seed': 0})
  again = open_journal(tmp_path / 'j', {'seed': 0}, True)
  assert len(again.entries) == 4 and again.entries == kept.entries
  for i in (0, 1, 4, 5):
    np.testing.assert_array_equal(again.features(i), kept.features(i))
    np.testing.assert_array_equal(again.pictures(i)['truth'], kept.pictures(i)['truth'])
  again.remove()
  assert not (tmp_path / 'j').exists()


def test_a_journal_in_memory_is_no_different(tmp_path):
  kept = Journal()
  features = np.ones((2, 3, 2048), np.float32)
  kept.add(entries(7, 8), features, {'truth': np.zeros((2, 4, 6, 3), np.uint8)})
  assert kept.features(8).shape == (3, 2048) and kept.pictures(7)['truth'].shape == (4, 6, 3)
  kept.remove()


def test_what_was_torn_is_forgotten(tmp_path):
  filled(tmp_path / 'j', {'seed': 0})
  (file,) = (tmp_path / 'j').glob('*.jsonl')
  text = file.read_text()
  file.write_text(text[:-20])
  assert sorted(open_journal(tmp_path / 'j', {'seed': 0}, True).entries) == [0, 1]
  # What comes after a torn line lies in another file, and stays whole.
  more = open_journal(tmp_path / 'j', {'seed': 0}, True)
  more.add(entries(9), np.zeros((1, 3, 2048), np.float32), {'truth': np.zeros((1, 4, 6, 3))})
  assert sorted(open_journal(tmp_path / 'j', {'seed': 0}, True).entries) == [0, 1, 9]
  # A line whose arrays are not whole does not count either.
  file.write_text(text)
  file.with_name(f'{file.stem}-0.npy').write_bytes(b'\x93NUMPY')
  file.with_name(f'{file.stem}-1.npz').unlink()
  assert sorted(open_journal(tmp_path / 'j', {'seed': 0}, True).entries) == [9]


def test_a_journal_of_something_else_is_thrown_away(tmp_path, caplog):
  caplog.set_level('INFO')
  filled(tmp_path / 'j', {'seed': 0, 'rows': ['a']})
  assert not open_journal(tmp_path / 'j', {'seed': 1, 'rows': ['a']}, True).entries
  assert 'since it differs in: seed' in caplog.text
  filled(tmp_path / 'k', {'seed': 0})
  assert not open_journal(tmp_path / 'k', {'seed': 0}, False).entries
  assert 'as --noresume asks' in caplog.text
  filled(tmp_path / 'l', {'seed': 0})
  assert not open_journal(tmp_path / 'l', None, True).entries
  assert not (tmp_path / 'l').exists()


class Images(list):
  def path(self, i):
    return self[i][1]


class Spy:
  """Mean fill that notes the images it sees and fails at one call."""

  kind = 'fill'  # a system's best and worst images would be completed once more

  def __init__(self, fail_at=-1, weights='w'):
    self.seen, self.fail_at, self.weights = [], fail_at, weights

  def __call__(self, image, mask, ids):
    if len(self.seen) == self.fail_at:
      raise RuntimeError('out of memory')
    self.seen.append(ids.tolist())
    return classical.mean_fill(image, mask, ids)

  def fingerprint(self):
    return self.weights


def report(spy, output, photographs, *, batch_size=2, seed=0, resume=True):
  images = Images((p[:24, k : k + 24], f'{k}') for k, p in enumerate([*photographs] * 2))
  masks = sets.make('strokes', BINS, 24, 24, seed=seed)
  spec = EvaluationSpec(
    {'spy': spy, 'Telea': classical.telea},
    MaskedImages(images, masks, seed=seed, masks_name='strokes'),
    PROTOCOL,
    batch_size=batch_size,
  )
  return run.evaluate_and_report(spec, output, resume=resume)


def test_an_evaluation_that_failed_goes_on(photographs, tmp_path, capsys):
  straight = Spy()
  report(straight, tmp_path / 'straight', photographs)
  with pytest.raises(RuntimeError):
    report(Spy(fail_at=4), tmp_path / 'out', photographs)
  assert (tmp_path / '.out.partial').is_dir()
  spy = Spy()
  report(spy, tmp_path / 'out', photographs)
  assert straight.seen == [[0, 1]] * 2 + [[2, 3]] * 2 + [[4, 5]] * 2
  assert spy.seen == [[4, 5]] * 2
  for path in (tmp_path / 'straight').iterdir():
    assert (tmp_path / 'out' / path.name).read_bytes() == path.read_bytes(), path.name
  assert not (tmp_path / '.out.partial').exists()


@pytest.mark.parametrize(
  ('changes', 'seen'),
  [
    (dict(batch_size=3), [[4, 5, 5]] * 2),  # filled up to three
    (dict(seed=1), [[0, 1]] * 2 + [[2, 3]] * 2 + [[4, 5]] * 2),
    (dict(resume=False), [[0, 1]] * 2 + [[2, 3]] * 2 + [[4, 5]] * 2),
    (dict(weights='others'), [[0, 1]] * 2 + [[2, 3]] * 2 + [[4, 5]] * 2),
  ],
)
def test_what_may_be_resumed(photographs, tmp_path, changes, seen):
  with pytest.raises(RuntimeError):
    report(Spy(fail_at=4), tmp_path / 'out', photographs)
  spy = Spy(weights=changes.pop('weights', 'w'))
  report(spy, tmp_path / 'out', photographs, **changes)
  assert spy.seen == seen


def test_rows_that_cannot_say_what_they_are_are_not_resumed(photographs, tmp_path):
  with pytest.raises(RuntimeError):
    failing = Spy(fail_at=4)
    report(lambda *x: failing(*x), tmp_path / 'out', photographs)
  assert not (tmp_path / '.out.partial').exists()
