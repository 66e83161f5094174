"""P-IDS and U-IDS: can a linear classifier tell the outputs from the truth?

Zhao, Cui, Sheng, Dong, Liang, Chang, Xu: "Large Scale Image Completion via Co-Modulated Generative
Adversarial Networks", ICLR 2021, https://arxiv.org/abs/2103.10428, section 4; as CoModGAN's and
MAT's code have it: a linear support vector machine (scikit-learn's LinearSVC in its primal form) on
Inception's features of all real and all fake pictures, judged on the pictures that it was fitted
to. With few pictures it separates any two sets, so figures of different numbers cannot be compared.
"""

import importlib.util

import numpy as np

MISSING = (
  'scikit-learn is not installed: `pip install "jaxinpaint[metrics]"` or `pip install scikit-learn`'
)


def available() -> bool:
  """Whether scikit-learn is installed."""
  return importlib.util.find_spec('sklearn') is not None


def scores(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
  """(P-IDS, U-IDS) in percent; higher if outputs are harder to tell from the truth.

  P-IDS is the share of pairs whose fake lies further on the real side than its own truth: 0 to 100,
  50 where nothing tells them apart. U-IDS is the classifier's error rate: 0 to 50.

  Args:
    real: f32[N,d], features of the truths.
    fake: f32[N,d], of the outputs; row i belongs to row i of `real`.

  Raises:
    ValueError: the sets are empty, or not pairs.
    ModuleNotFoundError: without scikit-learn; says how to get it.
  """
  real, fake = np.asarray(real), np.asarray(fake)
  if real.shape != fake.shape or real.ndim != 2 or not len(real):
    raise ValueError(
      f'P-IDS and U-IDS compare pairs, [N, d] each, not {real.shape} with {fake.shape}'
    )
  if not available():
    raise ModuleNotFoundError(f'P-IDS and U-IDS: {MISSING}')
  from sklearn import svm  # an extra, and slow to import

  rows = np.concatenate([real, fake])
  labels = np.concatenate([np.ones(len(real)), np.zeros(len(fake))])
  machine = svm.LinearSVC(dual=False).fit(rows, labels)
  paired = np.mean(machine.decision_function(fake) > machine.decision_function(real))
  return float(100 * paired), float(100 * (1 - machine.score(rows, labels)))
