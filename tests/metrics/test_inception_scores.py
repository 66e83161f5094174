"""P-IDS and U-IDS on features whose separability is known."""

import numpy as np
import pytest

from jaxinpaint.metrics import inception_scores


def _sets(n=400, d=4):
  return np.random.default_rng(0).standard_normal((2, n, d)).astype(np.float32)


def test_what_a_plane_separates_scores_nothing():
  real, fake = _sets()
  fake[:, 0] = np.abs(fake[:, 0]) + 1
  real[:, 0] = -np.abs(real[:, 0]) - 1
  assert inception_scores.scores(real, fake) == (0, 0)


def test_the_same_features_cannot_be_told_apart():
  real, _ = _sets()
  # Equal numbers of both sorts at every point: half are wrong, and no fake beats its own truth.
  assert inception_scores.scores(real, real.copy()) == (0, 50)


def test_of_one_kind_half_of_the_pairs_are_the_wrong_way_round():
  p_ids, u_ids = inception_scores.scores(*_sets())
  assert 40 < p_ids < 50 and 40 < u_ids < 50  # below 50: it was fitted to these very points


def test_paired_fakes_count_against_their_own_truth():
  """Fakes a little aside of truths that are spread widely: hard to tell alone, easy in pairs."""
  real, _ = _sets(400, 2)
  real *= 10
  p_ids, u_ids = inception_scores.scores(real, real + np.float32([0.5, 0]))
  assert p_ids == 0 and 40 < u_ids < 50
  mixed = np.roll(real, 1, axis=0)
  p_ids, _ = inception_scores.scores(real, mixed + np.float32([0.5, 0]))
  assert 30 < p_ids < 60


def test_by_hand_in_one_dimension():
  """The plane lies near zero: reals above it except one of four."""
  real = np.array([[3.0], [2.0], [4.0], [-1.0]])
  fake = np.array([[-3.0], [-2.0], [-4.0], [-0.5]])
  assert inception_scores.scores(real, fake) == (25, 12.5)


def test_what_it_refuses(monkeypatch):
  real, fake = _sets(8)
  with pytest.raises(ValueError, match=r'\(8, 4\) with \(7, 4\)'):
    inception_scores.scores(real, fake[:7])
  with pytest.raises(ValueError, match='compare pairs'):
    inception_scores.scores(real[:0], fake[:0])
  monkeypatch.setattr(inception_scores, 'available', lambda: False)
  with pytest.raises(ModuleNotFoundError, match=r'pip install "jaxinpaint\[metrics\]"'):
    inception_scores.scores(real, fake)
