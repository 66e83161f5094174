"""The published MI-GAN weights, which are of the merged form.

  jaxinpaint weights import migan migan_512_places2.pt OUT
  jaxinpaint weights import migan migan_traced.pt OUT

A file is the state dict of a generator (encoder.*, synthesis.*); critics are not published.
Resampling filters are arrays of it and constants here; an import checks that
they are the same. The pickles that the authors' training
writes hold program code and are not read: export `G_ema` with the authors' code.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxinpaint.systems.migan.networks import sides
from jaxinpaint.weights import hub, mapping


def _filter(total: float) -> Callable[[tuple[int, ...]], np.ndarray]:
  """1, 3, 3, 1 along rows and columns, the same for every channel, which sum to `total`."""
  taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1])
  return lambda shape: np.broadcast_to(taps * (total / taps.sum()), shape)


def _one_of_four(shape: tuple[int, ...]) -> np.ndarray:
  """1 in even rows and columns, else 0: what doubling leaves of repeated samples."""
  picture = np.zeros(shape)
  picture[..., ::2, ::2] = 1
  return picture


CONSTANTS = {
  r'(^|\.)downsample\.filter\.weight$': _filter(1.0),
  r'(^|\.)upsample\.filter\.weight$': _filter(4.0),
  r'(^|\.)upsample\.filter_const$': _one_of_four,
}


def separable_entries(
  key: str, network: str, path: tuple[str, ...], noise: bool = False
) -> tuple[mapping.Entry, ...]:
  """Entries of a `SeparableConv`, whose keys are KEYconv1.weight and so on."""
  entries = [
    *mapping.conv(f'{key}conv1', network, (*path, 'depthwise')),
    *mapping.conv(f'{key}conv2', network, (*path, 'pointwise'), bias=False),
  ]
  if noise:
    buffer = dict(layout='plane', collection='buffers')
    entries += [
      mapping.Entry(f'{key}noise_strength', network, (*path, 'noise_weight'), 'scalar'),
      mapping.Entry(f'{key}noise_const', network, (*path, 'noise'), **buffer),
    ]
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of a merged generator."""
  size = model.get('size', 512)
  first = ('encoder', 'from_rgb')
  result = [*mapping.conv(f'encoder.b{size}.fromrgb', 'generator', first)]
  for r in sides(size):
    for part, noise in (('encoder', False), ('synthesis', r > 4)):
      for i in (1, 2):
        path = (part, f'conv{r}_{i}')
        result += separable_entries(f'{part}.b{r}.conv{i}.', 'generator', path, noise)
    result += mapping.conv(f'synthesis.b{r}.torgb', 'generator', ('synthesis', f'rgb{r}'))
  return tuple(result)


PAPER = mapping.Paper(
  title='MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices',
  authors='Sargsyan, Navasardyan, Xu and others',
  venue='ICCV',
  year=2023,
  url='https://github.com/Picsart-AI-Research/MI-GAN',
  idea='a small U-Net of depthwise convolutions that learns from Co-Mod-GAN',
  reference="authors' code",
)

_FACTS = dict(
  entries=entries,
  constants=CONSTANTS,
  licence='that of the repository of MI-GAN; not checked here',
  url='https://github.com/Picsart-AI-Research/MI-GAN',
)

FORMATS = {
  'migan': mapping.Format(
    note='migan_512_places2.pt, linked in its README; migan_traced.pt of IOPaint (TorchScript)',
    model={'form': 'merged'},
    **_FACTS,
  ),
  'migan_256': mapping.Format(
    note='migan_256_places2.pt and migan_256_ffhq.pt, linked there',
    model={'size': 256, 'form': 'merged'},
    **_FACTS,
  ),
}

_TRACED = hub.File(
  'generator',
  'https://github.com/Sanster/models/releases/download/migan/migan_traced.pt',
  md5='76eb3b1a71c400ee3290524f7a11b89c',
)
NAMES = {'places2-512': hub.Named('migan', (_TRACED,))} | {
  f'{data}-256': hub.Named(
    'migan_256', (hub.by_hand(f'migan_256_{data}.pt', f'migan_256_{data}.pt'),)
  )
  for data in ('places2', 'ffhq')
}
