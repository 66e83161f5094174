"""The published MISF checkpoints: PyTorch files of tsingqguo/misf.

The generator's file holds {'iteration', 'generator': state dict}, the discriminator's
{'discriminator': state dict}. The latter has every array of conv1 ... conv5 a second time, under
features.*, an alias of the same module.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

# Names in the kernel branch: the reference's, then those of layers.kernel_prediction, which follow
# the paper's levels.
_BASICS = {
  'conv1': 'enc1',
  'conv2': 'enc2',
  'conv3': 'enc3',
  'conv4': 'mid',
  'conv7': 'dec1',
  'conv8': 'dec2',
  'conv9': 'dec3',
}
IGNORE = (
  r'^kpn_model\.conv_final\.',  # in every file, but not used
  r'^features\.',  # aliases in the discriminator's file
)


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  entries = []

  def add(key: str, path: tuple[str, ...], kind: mapping.Layer = mapping.conv) -> None:
    entries.extend(kind(key, 'generator', path))

  for key, name in (('encoder0.1', 'encoder0'), ('encoder1.0', 'encoder1')):
    add(key, (name,))
  add('encoder2.0', ('encoder2',))
  for i in range(model.get('blocks', 8)):
    add(f'middle.{i}.conv_block.1', (f'middle{i}', 'conv1'))
    add(f'middle.{i}.conv_block.5', (f'middle{i}', 'conv2'))
  add('decoder.0', ('decoder0',), mapping.conv_transpose)
  add('decoder.3', ('decoder1',), mapping.conv_transpose)
  add('decoder.7', ('decoder2',))
  for theirs, ours in _BASICS.items():
    for i, key in enumerate((0, 2, 4), start=1):
      add(f'kpn_model.{theirs}.conv1.{key}', ('kpb', ours, f'conv{i}'))
  add('kpn_model.kernels', ('kpb', 'feature_kernels'))
  add('kpn_model.core_img', ('kpb', 'kernels'))
  return tuple(entries)


def discriminator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the patch discriminator."""
  entries = []
  for i in range(1, 6):
    entries.extend(mapping.sn_conv(f'conv{i}.0', 'discriminator', (f'conv{i}',), bias=False))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model) + discriminator_entries()


PAPER = mapping.Paper(
  title='MISF: Multi-level Interactive Siamese Filtering for High-Fidelity Image Inpainting',
  authors='Li, Guo, Lin and others',
  venue='CVPR',
  year=2022,
  url='https://arxiv.org/abs/2203.06304',
  idea='multi-level siamese filtering',
  reference="authors' code",
)

FORMATS = {
  'misf': mapping.Format(
    entries=entries,
    unwrap=('generator', 'discriminator'),
    ignore=IGNORE,
    note=(
      'NAME_InpaintingModel_gen.pth and, if wanted, NAME_InpaintingModel_dis.pth, NAME one of '
      'places2, celebA and Dunhuang'
    ),
    licence='none stated by the authors: ask them before using the weights commercially',
    url='https://github.com/tsingqguo/misf',
  ),
}

_ADDRESS = 'https://github.com/tsingqguo/misf/raw/main/checkpoints/'
NAMES = {
  'places2': hub.Named(
    'misf', (hub.File('generator', _ADDRESS + 'places2_InpaintingModel_gen.pth'),)
  ),
  'celeba': hub.Named('misf', (hub.by_hand('celebA_InpaintingModel_gen.pth', 'generator.pth'),)),
  'dunhuang': hub.Named(
    'misf', (hub.by_hand('Dunhuang_InpaintingModel_gen.pth', 'generator.pth'),)
  ),
}
