"""Made-up results for the tests of reports: no image is measured."""

import numpy as np

from jaxinpaint.metrics import protocols
from jaxinpaint.report.results import (
  Example,
  Record,
  Results,
)

PROTOCOL = protocols.SEED000
BINS = protocols.parse_bins(['10-20', '20-40'])


def make(predictors, *, n=12, draw=0, files='photo{}.jpg', examples=2, **fields):
  """Results whose predictors differ from a common difficulty of each image by {name: offset}.

  An offset is in dB; the other numbers follow it.
  """
  rng = np.random.default_rng(draw)
  records, pictures = [], []
  for b in BINS:
    hard = 25 + 5 * rng.standard_normal(n)
    share = rng.uniform(b.low + 0.01, b.high, n)
    for name, offset in predictors.items():
      own = np.random.default_rng([draw, len(name), *name.encode()])
      for i in range(n):
        db = hard[i] + offset + (0.1 * own.standard_normal() if offset else 0)
        values = {
          'psnr': db, 'ssim': 1 - 10 ** (-db / 20), 'l1_percent': 100 * 10 ** (-db / 20),
          'hole_psnr': db - 5, 'hole_ssim': 0.5 + db / 100, 'hole_l1_percent': 60 - db,
        }  # fmt: skip
        records.append(Record(name, b, i, files.format(i), float(share[i]), values))
    for i in range(examples):
      truth = np.random.default_rng(i).integers(0, 256, (24, 20, 3), np.uint8)
      mask = np.zeros((24, 20), np.uint8)
      mask[3:9, 5 + i : 15] = 1
      outputs = {name: np.where(mask[..., None] > 0, 7, truth) for name in predictors}
      pictures.append(Example(b, i, truth, mask, outputs))
  given = dict(
    protocol=PROTOCOL,
    predictors=tuple(predictors),
    bins=BINS,
    records=records,
    examples=pictures,
    skipped=[],
    mask_sha256='ab' * 32,
    seed=0,
    size=(24, 20),
    dataset='folder:photos/',
    masks='irregular',
  )
  return Results(**given | fields)
