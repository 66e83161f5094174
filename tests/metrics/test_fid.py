"""FID against the reference and SciPy's matrix root; its statistics, however rows are cut."""

import goldens
import numpy as np
import pytest

from jaxinpaint.metrics import fid


@goldens.cases('fid_frechet')
def test_frechet_distance_equals_the_reference(case):
  data = case.data()
  a, b = (fid.Statistics(32).add(data[k]) for k in 'ab')
  gaussians = (a.mean(), a.covariance(), b.mean(), b.covariance())
  for got in (
    fid.from_features(data['a'], data['b']),
    fid.from_statistics(a, b),
    fid.frechet_distance(*gaussians),
    fid.frechet_distance(*gaussians, method='sqrtm'),
  ):
    goldens.assert_close(got, data['fid'], atol=1e-8)


def _psd(rng, d, rank):
  x = rng.standard_normal((rank, d))
  return x.T @ x / rank


@pytest.mark.filterwarnings('ignore:Matrix is singular')
@pytest.mark.parametrize('ranks', [(40, 40), (40, 9), (9, 12), (1, 40)])
def test_both_roots_agree_also_without_full_rank(ranks):
  rng = np.random.default_rng(sum(ranks))
  c1, c2 = (_psd(rng, 24, rank) for rank in ranks)
  mean1, mean2 = rng.standard_normal((2, 24))
  want = fid.frechet_distance(mean1, c1, mean2, c2, method='sqrtm')
  # SciPy's root of a singular matrix is only good to the root of its precision.
  tolerance = 1e-9 if min(ranks) >= 24 else 1e-4
  assert fid.frechet_distance(mean1, c1, mean2, c2) == pytest.approx(want, abs=tolerance)
  assert abs(fid.frechet_distance(mean1, c1, mean1, c1)) < 1e-5


@pytest.mark.parametrize('counts', [(12, 9), (12, 60), (60, 12), (60, 50)])
@pytest.mark.parametrize('ddof', [0, 1])
def test_features_and_statistics_give_one_number(counts, ddof):
  """Fewer rows than features in none, one or both sets; ddof matters."""
  rng = np.random.default_rng(0)
  real, fake = (rng.standard_normal((n, 24)) * 3 + 1 for n in counts)
  got = fid.from_features(real, fake, ddof=ddof)
  means = real.mean(0), fake.mean(0)
  covariances = [np.cov(x, rowvar=False, ddof=ddof) for x in (real, fake)]
  want = fid.frechet_distance(means[0], covariances[0], means[1], covariances[1])
  assert got == pytest.approx(want, rel=1e-6)
  assert abs(got - fid.from_features(real, fake, ddof=1 - ddof)) > 1e-2
  assert abs(fid.from_features(real, real, ddof=ddof)) < 1e-9 * got
  assert fid.from_features(real, real + 2, ddof=ddof) == pytest.approx(24 * 4)


def test_the_rules_for_roots_that_are_none(monkeypatch):
  eye, zero = np.eye(3), np.zeros(3)
  roots = iter([np.full((3, 3), np.nan), 2 * eye, eye + 1e-4j * eye, eye + 1e-2j * eye])
  monkeypatch.setattr(fid.scipy.linalg, 'sqrtm', lambda m: seen.append(m) or next(roots))
  seen = []
  root = lambda: fid.frechet_distance(zero, eye, zero, eye, method='sqrtm')
  assert root() == 3 + 3 - 2 * 6
  np.testing.assert_allclose(seen[1], (1 + 1e-6) ** 2 * eye)
  assert root() == 0  # a small imaginary part is dropped
  with pytest.raises(ValueError, match=r'imaginary part of 0\.01'):
    root()
  with pytest.raises(ValueError, match='has the eigenvalue -1: it is not one'):
    fid.frechet_distance(zero, np.diag([1.0, 1, -1]), zero, eye)
  with pytest.raises(ValueError, match="method 'root'"):
    fid.frechet_distance(zero, eye, zero, eye, method='root')
  with pytest.raises(ValueError, match='NaN or infinity'):
    fid.frechet_distance(zero, np.nan * eye, zero, eye)
  with pytest.raises(ValueError, match=r'\(3,\) and \(2,\)'):
    fid.frechet_distance(zero, eye, zero[:2], eye)


def test_statistics_do_not_depend_on_how_rows_are_cut():
  rng = np.random.default_rng(1)
  rows = rng.standard_normal((1300, 16)).astype(np.float32)
  whole = fid.Statistics(16).add(rows)
  for size in (1, 7, 600):
    parts = fid.Statistics(16)
    for start in range(0, len(rows), size):
      parts.add(rows[start : start + size])
      if start == 70:
        parts.mean()  # looking in between changes nothing
    assert parts.n == 1300
    np.testing.assert_array_equal(parts.mean(), whole.mean())
    np.testing.assert_array_equal(parts.covariance(), whole.covariance())
  for ddof in (0, 1):
    want = np.cov(rows.astype(np.float64), rowvar=False, ddof=ddof)
    np.testing.assert_allclose(whole.covariance(ddof), want, rtol=1e-10, atol=1e-14)
  merged = fid.Statistics(16).add(rows[:501]).merge(fid.Statistics(16).add(rows[501:]))
  assert merged.n == 1300
  np.testing.assert_allclose(merged.covariance(), whole.covariance(), rtol=1e-12, atol=1e-15)


def test_statistics_refuse_what_is_none():
  with pytest.raises(ValueError, match=r'\(3, 5\), wanted is \[n, 4\]'):
    fid.Statistics(4).add(np.zeros((3, 5)))
  with pytest.raises(ValueError, match='NaN or infinity'):
    fid.Statistics(4).add(np.full((1, 4), np.inf))
  with pytest.raises(ValueError, match='over 1 pictures, not 1'):
    fid.Statistics(4).add(np.zeros((1, 4))).covariance()
  with pytest.raises(ValueError, match='over 1 pictures in each set, not 1'):
    fid.from_features(np.zeros((1, 4)), np.zeros((3, 4)))
  with pytest.raises(ValueError, match='of 4 and 5 features'):
    fid.Statistics(4).merge(fid.Statistics(5))


def test_saved_statistics_come_back(tmp_path):
  rows = np.random.default_rng(2).standard_normal((20, 4))
  fid.Statistics(4).add(rows).save(tmp_path / 'a' / 'b.npz')
  back = fid.Statistics.load(tmp_path / 'a' / 'b.npz')
  assert back.n == 20
  np.testing.assert_array_equal(back.covariance(), fid.Statistics(4).add(rows).covariance())
  back.add(rows)
  assert back.n == 40
  assert [p.name for p in (tmp_path / 'a').iterdir()] == ['b.npz']
  np.savez(tmp_path / 'other.npz', mu=np.zeros(4))
  np.savez(tmp_path / 'objects.npz', n=1, sum=np.array([{}]), outer=np.zeros(1))
  (tmp_path / 'text.npz').write_text('no')
  for name in ('other', 'objects', 'text'):
    with pytest.raises(ValueError, match=rf'{name}\.npz does not hold statistics'):
      fid.Statistics.load(tmp_path / f'{name}.npz')
  with pytest.raises(FileNotFoundError):
    fid.Statistics.load(tmp_path / 'nowhere.npz')


def test_real_features_are_kept_and_a_damaged_file_is_not_believed(tmp_path, monkeypatch, caplog):
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path))
  pictures = [np.full((4, 5, 3), i, np.uint8) for i in range(3)]
  key = fid.dataset_key(pictures)
  others = (
    pictures[::-1],
    pictures[:2],
    [x.reshape(5, 4, 3) for x in pictures],
    [pictures[0] + 1, *pictures[1:]],
  )
  assert len({key, *map(fid.dataset_key, others), fid.dataset_key(pictures, 'another')}) == 6
  calls = []

  def compute():
    calls.append(0)
    return np.arange(6.0).reshape(3, 2)

  for _ in range(2):
    np.testing.assert_array_equal(fid.cached_features(key, compute), compute())
  assert len(calls) == 3  # two of them are the test's own
  file = tmp_path / 'statistics' / f'{key}.npz'
  damaged = bytearray(file.read_bytes())
  swapped = np.load(file)['sha256']
  for write in (
    lambda: file.write_bytes(damaged[: len(damaged) // 2]),
    lambda: np.savez(file, features=np.zeros((3, 2), np.float32), sha256=swapped),
  ):
    calls.clear()
    caplog.clear()
    write()
    np.testing.assert_array_equal(fid.cached_features(key, compute)[2], [4, 5])
    assert len(calls) == 1 and 'computed again' in caplog.text
  with pytest.raises(ValueError, match=r'float64\[4, 5, 3\], wanted is uint8'):
    fid.dataset_key([np.zeros((4, 5, 3))])


def test_a_folder_that_cannot_be_written_to_is_a_warning(tmp_path, monkeypatch, caplog):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('JAXINPAINT_CACHE', str(tmp_path / 'file'))
  assert fid.cached_features('0' * 64, lambda: np.ones((2, 2))).shape == (2, 2)
  assert 'could not be kept' in caplog.text


def test_few_pictures_are_warned_of_once(monkeypatch, caplog):
  monkeypatch.setattr(fid, '_WARNED', set())
  rows = np.random.default_rng(3).standard_normal((5, 8))
  for _ in range(2):
    fid.from_features(rows, rows)
  assert caplog.text.count('FID of 5 pictures: below 8') == 1
