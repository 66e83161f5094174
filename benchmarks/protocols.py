"""docs/protocols.md: every evaluation protocol, and how far the definitions lie apart.

  python -m benchmarks.protocols             docs/protocols.json -> docs/protocols.md
  python -m benchmarks.protocols --measure   takes the numbers again first

docs/protocols.json holds what is measured: the same pairs of pictures under each definition.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import skimage

from jaxinpaint import arrays
from jaxinpaint.data import resizing
from jaxinpaint.evaluation import classical
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import pixels, protocols
from jaxinpaint.metrics.protocol import Metric, Protocol
from jaxinpaint.pictures import decode

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
COUNT, SIDE, BIN, MASKS = 16, 256, Bin(0.2, 0.4), 'irregular'

# name: (label of the quantity, the definition in words, function, options)
DEFINITIONS = {
  'psnr': ('PSNR', 'one mse over all pixels and channels', 'psnr', {}),
  'psnr_channels': ('PSNR', 'mean of the three channels (survey)', 'psnr_channels', {}),
  'psnr_gray': ('PSNR', 'of gray images (EdgeConnect)', 'psnr_gray', {}),
  'psnr_hole': ('PSNR', 'over the hole alone', 'psnr_hole', {}),
  'ssim_uniform7': ('SSIM', 'uniform 7 x 7 (scikit-image, AOT-GAN)', 'ssim', {}),
  'ssim_gaussian': (
    'SSIM',
    'Gaussian, 11 taps, inside the image (2004 paper, MAT)',
    'ssim',
    {'definition': 'gaussian'},
  ),
  'ssim_zero_padded': (
    'SSIM',
    'the same, padded with black, border counted (LaMa)',
    'ssim_zero_padded',
    {},
  ),
  'ssim_uniform51': ('SSIM', 'uniform 51 x 51 (PEN-Net)', 'ssim', {'definition': 'uniform51'}),
  'ssim_gray51': ('SSIM', 'uniform 51 x 51 of gray images (EdgeConnect)', 'ssim_gray', {}),
  'ssim_global': ('SSIM', "one window, the whole image (the survey's words)", 'ssim_global', {}),
  'ssim_hole': ('SSIM', 'uniform 7 x 7, at the pixels of the hole', 'ssim_hole', {}),
  'l1_percent': ('L1 / MAE', 'mean abs(a - b) of the range, %', 'l1_percent', {}),
  'l1_percent_hole': (
    'L1 / MAE',
    'the same over the hole alone (MMagic), %',
    'l1_percent_hole',
    {},
  ),
  'mae_rgb': ('L1 / MAE', '100 sum abs(a - b) / sum (a + b) (AOT-GAN)', 'mae_edgeconnect', {}),
  'mae_gray': ('L1 / MAE', 'the same of gray images (EdgeConnect)', 'mae_edgeconnect_gray', {}),
}
_PERCENT = ('mae_rgb', 'mae_gray')


# Whole photographs that scikit-image's wheel brings along.
PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg')


def measure() -> dict[str, dict[str, float]]:
  """{'definitions': {name: mean over the pairs}, 'kernels': {name: PSNR}} of Telea's fills."""
  whole = _means('area', DEFINITIONS)
  kernels = {kernel: _means(kernel, ('psnr',))['psnr'] for kernel in resizing.KERNELS}
  return {'definitions': whole, 'kernels': kernels}


def _means(kernel: str, names: Iterable[str]) -> dict[str, float]:
  folder = pathlib.Path(skimage.__file__).parent / 'data'
  truths = [
    resizing.square(decode.read_image(folder / f), SIDE, kernel=kernel) for f in PHOTOGRAPHS
  ]
  holes = sets.make(MASKS, [BIN], SIDE, SIDE, seed=0)[BIN]
  pairs = []
  for i in range(COUNT):
    truth, hole = truths[i % len(truths)], holes(i)
    mask = hole[None, ..., None].astype(np.float32)
    filled = classical.telea(arrays.to_float(truth)[None] * (1 - mask), mask, None)
    pairs.append((truth, np.where(hole[..., None] > 0, arrays.to_uint8(filled[0]), truth), hole))
  found = {}
  for name in names:
    _, _, function, options = DEFINITIONS[name]
    call, takes_hole = pixels.FUNCTIONS[function]
    values = [call(*(pair if takes_hole else pair[:2]), **options) for pair in pairs]
    found[name] = float(np.mean(values)) * (100 if name in _PERCENT else 1)
  return found


def render(measured: Mapping[str, Mapping[str, float]]) -> str:
  """The text of docs/protocols.md."""
  lines = [_HEADER]
  lines += _table(
    ('id', 'images', 'holes', 'PSNR', 'SSIM', 'L1', 'deep', 'measured'),
    [_row(p) for p in protocols.PROTOCOLS.values()],
  )
  lines += ['', _WHY]
  lines += _table(
    ('', 'definition', 'mean'),
    [
      (label, words, f'{measured["definitions"][name]:.{4 if label == "SSIM" else 2}f}')
      for name, (label, words, _, _) in DEFINITIONS.items()
    ],
  )
  lines += ['', _KERNELS]
  lines += _table(
    ('kernel', 'PSNR of the same fills'),
    [(f'`{k}`', f'{v:.2f}') for k, v in measured['kernels'].items()],
  )
  lines += ['', '## Sources and readings', '', _MARKS]
  for p in protocols.PROTOCOLS.values():
    lines += ['', f'**{p.id}**: {p.source}. {p.notes}']
  return '\n'.join(lines) + '\n'


_HEADER = """# Evaluation protocols

Made by `python -m benchmarks.protocols` of the code and of `docs/protocols.json`; do not edit by
hand. `jaxinpaint evaluate --protocol ID` follows one; what departs from it is listed in the report.

*Images*: count per bin, side, crop, kernel. *Holes*: bins in percent of the image, or by name.
*PSNR*, *SSIM*, *L1*: of which definition (`jaxinpaint/metrics/pixels.py` has the formulas).
*Deep*: what needs a network of features. *Measured*: the composite (known pixels pasted back) or
the raw output, and how it becomes 8 bits.
"""

_WHY = f"""## Why numbers of different protocols cannot be compared

The columns have the same names and are other quantities. Below, **the same pairs of pictures**
under each definition: the four photographs {', '.join(p.split('.')[0] for p in PHOTOGRAPHS)} of
scikit-image, centre square, {SIDE} x {SIDE} by area; {COUNT} holes of the family `{MASKS}` of
{100 * BIN.low:g}-{100 * BIN.high:g} %, seed 0, the photographs in turn; filled by OpenCV's Telea
with radius 3, composite, 8 bits; means over the {COUNT} pairs.
"""

_KERNELS = """What the truth is differs too: the same photographs, holes and fill, the photographs
reduced by each kernel. A kernel that blurs makes the picture easier to fill.
"""

_MARKS = """*Stated* is what the source says, *Code* what its published code does, *Ours* what both
leave open and this library decides."""

_PSNRS = {
  'psnr': 'RGB',
  'psnr_channels': 'per channel',
  'psnr_gray': 'gray',
  'psnr_hole': 'hole',
}
_SSIMS = {
  'ssim': '{}',
  'ssim_gray': 'gray, {}',
  'ssim_zero_padded': 'Gaussian 11, zero-padded',
  'ssim_global': 'one window',
  'ssim_hole': 'hole, {}',
}
_L1S = {
  'l1': 'mean',
  'l1_percent': 'mean, %',
  'l2_percent': 'mean square, %',
  'mae_edgeconnect': 'sum / sum',
  'mae_edgeconnect_gray': 'gray, sum / sum',
  'l1_percent_hole': 'hole mean, %',
  'l2_percent_hole': 'hole mean square, %',
}
_WINDOWS = {'gaussian': 'Gaussian 11', 'uniform7': 'uniform 7', 'uniform51': 'uniform 51'}


def _row(p: Protocol) -> tuple[str, ...]:
  crop = {'center': 'centre square', 'window': 'middle window', 'resize': 'whole'}[p.crop]
  seen = {'protocol': p.composite, 'composite': True, 'raw': False}
  kinds = {'composite' if seen[m.of] else 'raw' for m in p.metrics}
  bits = {'nearest': '8 bits', 'truncate': '8 bits, cut'}[p.rounding]
  deep = [f'{m.label}{_net(m)}' for m in p.deep_metrics]
  return (
    p.id,
    f'{p.count}, {p.size}, {crop}, `{p.resize}`',
    ', '.join(b.label for b in p.bins),
    _kinds(p, _PSNRS),
    _kinds(p, _SSIMS),
    _kinds(p, _L1S),
    ', '.join(deep) or '-',
    f'{" and ".join(sorted(kinds))}, {bits if p.round_to_uint8 else "floats"}',
  )


def _net(metric: Metric) -> str:
  return f' ({metric.options["net"]})' if 'net' in metric.options else ''


def _kinds(p: Protocol, words: Mapping[str, str]) -> str:
  found = [
    words[m.function].format(_WINDOWS.get(m.options.get('definition', 'uniform7')))
    for m in p.host_metrics
    if m.function in words
  ]
  return '; '.join(dict.fromkeys(found)) or '-'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  line = lambda cells: '| ' + ' | '.join(cells) + ' |'
  return [line(head), '|' + '---|' * len(head), *map(line, rows)]


def main() -> None:
  """See the module's text."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--measure', action='store_true')
  numbers = DOCS / 'protocols.json'
  if parser.parse_args().measure:
    numbers.write_text(json.dumps(measure(), indent=2) + '\n')
  (DOCS / 'protocols.md').write_text(render(json.loads(numbers.read_text())))


if __name__ == '__main__':
  main()
