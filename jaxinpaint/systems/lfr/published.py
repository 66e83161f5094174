"""What LFR can start from: published pSp and StyleGAN2 files. Its own weights are not published.

  jaxinpaint weights import lfr psp_ffhq_encode.pt OUT           encoder and StyleGAN2
  jaxinpaint weights import lfr stylegan2-ffhq-config-f.pt OUT   StyleGAN2 alone

Training then starts from OUT by config.init_from, with config.model.stylegan_file='init_from'.
Alternatively it reads such a file itself, with config.model.stylegan_file=FILE. IR-SE50
(model_ir_se50.pth) is given as config.model.encoder_file, from which the encoder's body starts, and
as config.loss.arcface_file.
"""

from typing import Any

from jaxinpaint.layers.irse import DEPTHS
from jaxinpaint.systems.lfr import published_parts as parts
from jaxinpaint.weights import hub, mapping


def texture_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the texture generator, by the names that the tests' reference outputs use."""
  entries = []
  counts = {'enc1': 1} | {f'enc{i}': 2 for i in range(2, 7)} | {'enc4': 6}
  counts |= {f'dec{i}': 2 for i in range(1, 6)} | {f'att{i}': 2 for i in range(1, 4)}
  for name, count in counts.items():
    for i in range(count):
      entries.extend(mapping.conv(f'{name}.{i}.conv', 'texture', (f'{name}_{i}', 'conv')))
  return (*entries, *mapping.conv('out', 'texture', ('out',)))


def psp_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of a pSp file."""
  return parts.psp_entries(
    'encoder',
    'stylegan',
    generator_size=model.get('stylegan_size', 1024),
    size=model.get('size', 256),
    depths=tuple(model.get('encoder_depths', DEPTHS)),
    mlp_layers=model.get('stylegan_mlp_layers', 8),
  )


def stylegan2_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of a StyleGAN2 file that rosinality/stylegan2-pytorch has converted."""
  size, layers = model.get('stylegan_size', 1024), model.get('stylegan_mlp_layers', 8)
  return (
    *parts.generator_entries('stylegan', size, 'g_ema.', mlp_layers=layers),
    mapping.Entry('latent_avg', 'stylegan', ('latent_avg',), 'rows', 'buffers'),
  )


PAPER = mapping.Paper(
  title='Face Image Restoration Based on Latent Feature Reconstruction and Attention Mechanism',
  authors='Zhang, Liu',
  venue='Journal of Chongqing Technology and Business University (Natural Science Edition) 40(2)',
  year=2023,
  url='https://doi.org/10.16055/j.issn.1672-058X.2023.0002.011',
  idea='StyleGAN2 latents for structure, attention between levels for texture',
  reference="texture: transcribed from the paper; pSp: authors' code; StyleGAN2: port",
)

FORMATS = {
  'psp': mapping.Format(
    entries=psp_entries,
    ignore=parts.IGNORE,
    note=(
      'psp_ffhq_encode.pt and the other five files linked by the authors of pSp: its encoder and '
      'StyleGAN2, 1024 pixels; the texture generator is to be trained'
    ),
    licence='MIT (code of pSp); the StyleGAN2 weights in it: Nvidia Source Code License-NC',
    url='https://github.com/eladrich/pixel2style2pixel',
    model={'stylegan_file': 'init_from'},
    partial=True,
  ),
  'stylegan2': mapping.Format(
    entries=stylegan2_entries,
    ignore=(*parts.IGNORE, r'^g\.', r'^d\.'),
    note='stylegan2-ffhq-config-f.pt: StyleGAN2 alone, 1024 pixels; the rest is to be trained',
    licence='Nvidia Source Code License-NC',
    url='https://github.com/rosinality/stylegan2-pytorch',
    model={'stylegan_file': 'init_from'},
    partial=True,
  ),
}

# Starts for training: config.init_from takes them.
NAMES = {
  'psp': hub.Named('psp', (hub.by_hand('psp_ffhq_encode.pt', 'psp_ffhq_encode.pt'),)),
  'stylegan2': hub.Named(
    'stylegan2', (hub.by_hand('stylegan2-ffhq-config-f.pt', 'stylegan2-ffhq-config-f.pt'),)
  ),
}
