"""Reference outputs of the published code, and how tests find them.

A case is NAME.json (the reference checkpoint's keys and shapes; `golden/fill.py` makes its
weights) and one or more NPZ files with inputs and outputs. A file belongs to the case whose name is
the longest prefix of its own: `misf_generator_x2.npz` is checked by whatever checks
`misf_generator`. The folder is $JAXINPAINT_GOLDEN, default tests/golden.

  @goldens.cases('misf_generator')
  def test_generator(case):
    state, data = case.state(), case.data()
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
from unittest import mock

import numpy as np
import pytest

_HERE = pathlib.Path(__file__).parent / 'golden'
FOLDER = pathlib.Path(os.environ.get('JAXINPAINT_GOLDEN', _HERE))
CHECKED: set[str] = set()  # the case names that some test asked for

_spec = importlib.util.spec_from_file_location('fill', _HERE / 'fill.py')
_fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fill)


@dataclasses.dataclass(frozen=True)
class Case:
  """One NPZ file and the manifest that it belongs to."""

  name: str
  npz: pathlib.Path
  json: pathlib.Path

  def manifest(self) -> dict:
    return json.loads(self.json.read_text())

  def state(self) -> dict[str, np.ndarray]:
    """The reference checkpoint: {key: array in the reference's own layout}."""
    with mock.patch.object(np.linalg, 'svd', _leading_pair):
      return _fill.state_dict(self.manifest())

  def data(self) -> dict[str, np.ndarray]:
    """Inputs and outputs, in the reference's own layout."""
    with np.load(self.npz) as z:
      return {k: z[k] for k in z.files}


def _leading_pair(m: np.ndarray, full_matrices: bool):
  """The first column and row of an SVD, all that fill.py takes of one, in a tenth of the time.

  Both may have the other sign, which nothing notices: only their product is used.
  """
  wide = m.shape[0] <= m.shape[1]
  values, vectors = np.linalg.eigh(m @ m.T if wide else m.T @ m)
  first, scale = vectors[:, -1], np.sqrt(values[-1:])
  second = (first @ m if wide else m @ first) / scale
  u, v = (first, second) if wide else (second, first)
  return u[:, None], scale, v[None]


def all_cases() -> list[Case]:
  """Every NPZ of the folder with its manifest; files without one are an error."""
  manifests = {p.stem: p for p in _HERE.glob('*.json')} | {p.stem: p for p in FOLDER.glob('*.json')}
  found = []
  for npz in sorted(FOLDER.glob('*.npz')):
    names = [n for n in manifests if npz.stem.startswith(n)]
    if not names:
      raise FileNotFoundError(f'{npz}: no NAME.json whose NAME begins this file name')
    name = max(names, key=len)
    found.append(Case(name, npz, manifests[name]))
  return found


def cases(*names: str):
  """Marks a test `golden` and runs it once for each NPZ that belongs to one of the named cases."""
  CHECKED.update(names)
  chosen = [pytest.param(c, id=c.npz.stem) for c in all_cases() if c.name in names]

  def mark(test):
    return pytest.mark.golden(pytest.mark.parametrize('case', chosen)(test))

  return mark


def nhwc(x: np.ndarray) -> np.ndarray:
  """[N, C, H, W] -> [N, H, W, C]."""
  return np.moveaxis(x, 1, -1)


def nchw(x) -> np.ndarray:
  """[N, H, W, C] -> [N, C, H, W]."""
  return np.moveaxis(np.asarray(x), -1, 1)


def assert_close(got, want, atol: float = 1e-4, what: str = '') -> None:
  """Fails with the largest absolute error when it exceeds `atol`, or when a shape differs."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.shape == want.shape, f'{what}: shape {got.shape}, reference {want.shape}'
  error = np.abs(got - want).max() if got.size else 0.0
  if 'JAXINPAINT_GOLDEN_ERRORS' in os.environ:  # for docs/zoo.md
    with open(os.environ['JAXINPAINT_GOLDEN_ERRORS'], 'a') as log:
      log.write(f'{error}\t{os.environ["PYTEST_CURRENT_TEST"]}\n')
  assert error <= atol, f'{what}: max abs error {error:.3g} > {atol:.3g}'
