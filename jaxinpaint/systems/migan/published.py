"""The published MI-GAN weights, which are of the merged form.

  jaxinpaint weights import migan migan_512_places2.pt OUT
  jaxinpaint weights import migan migan_256_ffhq.pt OUT

A file is the state dict of a generator (encoder.*, synthesis.*); critics are not published.
Resampling filters are arrays of it and constants here; an import checks that
they are the same. The pickles that the authors' training
writes hold program code and are not read: export `G_ema` with the authors' code.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxinpaint.systems.migan.networks import TENSORS, sides
from jaxinpaint.weights import mapping

GENERATOR, CRITIC = 'generator', 'critic'
IGNORE = (r'(^|\.)resample_filter$',)  # of the training form


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


def kernel_entries(
  key: str, network: str, path: tuple[str, ...], tensors: int, bias: bool = True
) -> tuple[mapping.Entry, ...]:
  """Entries of a convolution: KEY.weight, or KEY.w0 ... of the training form, and KEY.bias."""
  if not tensors:
    return mapping.conv(key, network, path, bias)
  entries = [
    mapping.Entry(f'{key}.w{i}', network, (*path, f'kernel{i}'), 'conv') for i in range(tensors)
  ]
  if bias:
    entries.append(mapping.Entry(f'{key}.bias', network, (*path, 'bias')))
  return tuple(entries)


def separable_entries(
  key: str, network: str, path: tuple[str, ...], tensors: int, noise: bool = False
) -> tuple[mapping.Entry, ...]:
  """Entries of a `SeparableConv`; KEY '' stands for a state dict of it alone."""
  join = lambda *parts: '.'.join(part for part in (key, *parts) if part)
  entries = [
    *kernel_entries(join('conv1'), network, (*path, 'depthwise'), tensors),
    *kernel_entries(join('conv2'), network, (*path, 'pointwise'), tensors, bias=False),
  ]
  if noise:
    owner = () if not tensors else ('conv2',)
    strength, const = (join(*owner, name) for name in ('noise_strength', 'noise_const'))
    entries += [
      mapping.Entry(strength, network, (*path, 'noise_weight'), 'scalar'),
      mapping.Entry(const, network, (*path, 'noise'), 'plane', 'buffers'),
    ]
  return tuple(entries)


def generator_entries(size: int, tensors: int = 0) -> tuple[mapping.Entry, ...]:
  """Entries of a generator in its merged (0) or training form."""
  first = f'encoder.b{size}.fromrgb'
  entries = list(mapping.conv(first, GENERATOR, ('encoder', 'from_rgb')))
  if tensors:  # one normalised kernel
    kernel = ('encoder', 'from_rgb', 'kernel0')
    entries[0] = mapping.Entry(f'{first}.weight', GENERATOR, kernel, 'conv')
  for part in ('encoder', 'synthesis'):
    for r in sides(size):
      for i in (1, 2):
        key, path = f'{part}.b{r}.conv{i}', (part, f'conv{r}_{i}')
        noise = part == 'synthesis' and r > 4
        entries += separable_entries(key, GENERATOR, path, tensors, noise)
  for r in sides(size):
    path = ('synthesis', f'rgb{r}')
    entries += kernel_entries(f'synthesis.b{r}.torgb', GENERATOR, path, tensors)
  return tuple(entries)


def critic_entries(size: int) -> tuple[mapping.Entry, ...]:
  """Entries of a critic."""
  entries = list(kernel_entries(f'b{size}.fromrgb', CRITIC, ('from_rgb',), TENSORS))
  for r in sides(size)[1:]:
    for i in (1, 2):
      entries += separable_entries(f'b{r}.conv{i}', CRITIC, (f'block{r}', f'conv{i}'), TENSORS)
    entries += kernel_entries(f'b{r}.skip', CRITIC, (f'block{r}', 'skip'), TENSORS, bias=False)
  entries += separable_entries('b4.conv', CRITIC, ('conv4',), TENSORS)
  entries += [
    *mapping.dense('b4.fc', CRITIC, ('dense1',)),
    *mapping.dense('b4.out', CRITIC, ('dense2',)),
  ]
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of a published file."""
  return generator_entries(model.get('size', 512))


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
  licence='MIT (code of MI-GAN)',
  url='https://github.com/Picsart-AI-Research/MI-GAN',
)

FORMATS = {
  'migan': mapping.Format(
    note='migan_512_places2.pt, which its README links', model={'form': 'merged'}, **_FACTS
  ),
  'migan_256': mapping.Format(
    note='migan_256_places2.pt and migan_256_ffhq.pt, linked there',
    model={'size': 256, 'form': 'merged'},
    **_FACTS,
  ),
}
