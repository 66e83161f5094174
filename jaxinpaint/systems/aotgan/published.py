"""The published AOT-GAN checkpoints: PyTorch files of researchmm/AOT-GAN-for-Inpainting.

G0000000.pt is the generator's state dict and D0000000.pt the discriminator's, with nothing around
them; O0000000.pt holds optimizer states and is not read.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

PAPER = mapping.Paper(
  title='Aggregated Contextual Transformations for High-Resolution Image Inpainting',
  authors='Zeng, Fu, Chao, Guo',
  venue='IEEE Transactions on Visualization and Computer Graphics',
  year=2022,
  url='https://arxiv.org/abs/2104.01431',
  idea='aggregated contextual transformations, SM-PatchGAN',
  reference="authors' code",
)


def block_entries(key: str, path: tuple[str, ...], branches: int = 4) -> tuple[mapping.Entry, ...]:
  """Entries of one AOT block; `key` ends in a dot or is empty."""
  entries = []
  names = {f'block{i:02}.1': f'branch{i}' for i in range(branches)}
  for theirs, ours in (names | {'fuse.1': 'fuse', 'gate.1': 'gate'}).items():
    entries.extend(mapping.conv(f'{key}{theirs}', 'generator', (*path, ours)))
  return tuple(entries)


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  entries = []

  def add(key: str, *path: str) -> None:
    entries.extend(mapping.conv(key, 'generator', path))

  for i in range(3):
    add(f'encoder.{2 * i + 1}', f'encoder{i}')
  for i in range(model.get('blocks', 8)):
    branches = len(model.get('rates', (1, 2, 4, 8)))
    entries.extend(block_entries(f'middle.{i}.', (f'middle{i}',), branches))
  add('decoder.0.conv', 'decoder0', 'conv')
  add('decoder.2.conv', 'decoder1', 'conv')
  add('decoder.4', 'decoder2')
  return tuple(entries)


def discriminator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the discriminator."""
  entries = []
  for i in range(4):
    entries.extend(mapping.sn_conv(f'conv.{2 * i}', 'discriminator', (f'conv{i + 1}',), bias=False))
  entries.extend(mapping.conv('conv.8', 'discriminator', ('conv5',)))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model) + discriminator_entries()


FORMATS = {
  'aotgan': mapping.Format(
    entries=entries,
    note=(
      'G0000000.pt and, if wanted, D0000000.pt of the folders CELEBA-HQ and Places2, for images of '
      '512 x 512'
    ),
    licence='Apache-2.0 (the repository; nothing is said of the weights apart from it)',
    url='https://github.com/researchmm/AOT-GAN-for-Inpainting',
  ),
}

NAMES = {
  'celebahq': hub.Named('aotgan', (hub.by_hand('G0000000.pt of CELEBA-HQ', 'G0000000.pt'),)),
  'places2': hub.Named('aotgan', (hub.by_hand('G0000000.pt of Places2', 'G0000000.pt'),)),
}
