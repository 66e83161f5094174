"""The published PEN-Net checkpoints: PyTorch files of researchmm/PEN-Net-for-Inpainting.

A folder pennet_DATA_MASKS holds gen_00033.pth, {'netG': state dict}, and dis_00033.pth,
{'netD': state dict}; opt_00033.pth holds optimizer states and is not read.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

PAPER = mapping.Paper(
  title='Learning Pyramid-Context Encoder Network for High-Quality Image Inpainting',
  authors='Zeng, Fu, Chao, Guo',
  venue='CVPR',
  year=2019,
  url='https://arxiv.org/abs/1904.07475',
  idea='a pyramid of attention transfer from deep to shallow',
  reference="authors' code",
)


def atn_entries(prefix: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of an attention transfer that is followed by convolutions."""
  entries = []
  for i in range(4):
    entries.extend(mapping.conv(f'{prefix}conv0{i}.0', 'generator', (*path, f'fuse{i}')))
  return tuple(entries)


def generator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the generator."""
  names = {f'dw_conv0{i}.0': f'encoder{i}' for i in range(1, 7)}
  names |= {f'up_conv0{i}.0': f'decoder{i}' for i in range(1, 6)}
  names |= {f'torgb{i}.0': f'to_rgb{i}' for i in range(1, 6)}
  names |= {'decoder.0': 'out1', 'decoder.2': 'out2'}
  entries = [
    e for theirs, ours in names.items() for e in mapping.conv(theirs, 'generator', (ours,))
  ]
  for i in range(1, 5):
    entries.extend(atn_entries(f'at_conv0{i}.', (f'atn{i}',)))
  return tuple(entries)


def discriminator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the discriminator."""
  entries = []
  for i in range(4):
    path = (f'conv{i + 1}',)
    entries.extend(mapping.sn_conv(f'encoder.{2 * i}', 'discriminator', path, bias=False))
  entries.extend(mapping.conv('classifier', 'discriminator', ('conv5',)))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  del model
  return generator_entries() + discriminator_entries()


FORMATS = {
  'pennet': mapping.Format(
    entries=entries,
    unwrap=('netG:generator', 'netD:discriminator'),
    note=(
      'gen_00033.pth and, if wanted, dis_00033.pth of CelebA-HQ, Places2, Facade or DTD, for '
      'square or irregular holes'
    ),
    licence='MIT (of the repository; nothing is said of the weights by themselves)',
    url='https://github.com/researchmm/PEN-Net-for-Inpainting',
  ),
}

NAMES = {
  f'{name}-{holes}': hub.Named(
    'pennet', (hub.by_hand(f'gen_00033.pth of {data}, {holes} holes', 'gen_00033.pth'),)
  )
  for name, data in (
    ('celebahq', 'CelebA-HQ'),
    ('places2', 'Places2'),
    ('facade', 'Facade'),
    ('dtd', 'DTD'),
  )
  for holes in ('square', 'irregular')
}
