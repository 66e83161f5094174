"""The published RFR checkpoints: PyTorch files of jingyuanli001/RFR-Inpainting.

g_N.pth holds {'n_iter', 'generator': state dict, 'optimizer_G'}; the code also loads files that
lack keys, this does not. Both released networks have the same keys: the sizes of the kernels tell
which it is.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

PAPER = mapping.Paper(
  title='Recurrent Feature Reasoning for Image Inpainting',
  authors='Li, Wang, Zhang, Du, Tao',
  venue='CVPR',
  year=2020,
  url='https://arxiv.org/abs/2008.03737',
  idea='features completed in six recurrences, attention with a memory',
  reference="authors' code",
)


def attention_entries(prefix: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of the attention below the key `prefix`."""
  ratio = mapping.Entry(f'{prefix}att.ratio', 'generator', (*path, 'ratio'))
  return (ratio, *mapping.conv(f'{prefix}combiner', 'generator', (*path, 'combiner')))


def generator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the generator, of either variant."""
  entries = []

  def conv(key: str, *path: str, kind: Any = mapping.conv) -> None:
    entries.extend(kind(key, 'generator', path, bias=False))

  def norm(key: str, *path: str) -> None:
    entries.extend(mapping.norm(key, 'generator', path, statistics=True))

  pairs = (('1', '1', 'pconv1'), ('2', '20', 'pconv2'), ('22', '2', 'step', 'pconv22'))
  for number, of_norm, *path in pairs:
    conv(f'Pconv{number}', *path, 'conv')
    norm(f'bn{of_norm}', *path, 'bn')
  conv('Pconv21', 'step', 'pconv21')
  norm('bn3', 'bn3')
  conv('tail1', 'tail1')
  conv('out', 'out')
  conv('Tconv', 'tconv', kind=mapping.conv_transpose)
  for i in range(1, 4):
    conv(f'tail2.conv{i}', 'tail2', f'conv{i}')
    norm(f'tail2.bn{i}', 'tail2', f'bn{i}')

  module = ('step', 'module')
  for part, name, count in (('enc', 'encoder', 6), ('dec', 'decoder', 5)):
    for i in range(1, count + 1):
      kind = mapping.conv_transpose if part == 'dec' and i < 4 else mapping.conv
      conv(f'RFRModule.{part}_{i}.0', *module, f'{name}{i}', kind=kind)
      norm(f'RFRModule.{part}_{i}.1', *module, f'{name}{i}_bn')
  entries.extend(attention_entries('RFRModule.att.', (*module, 'attention')))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the one network."""
  del model
  return generator_entries()


_FILES = dict(
  entries=entries,
  unwrap=('generator',),
  licence='MIT (of the repository; nothing is said of the weights by themselves)',
  url='https://github.com/jingyuanli001/RFR-Inpainting',
)

FORMATS = {
  'rfr': mapping.Format(
    note='g_N.pth of Paris StreetView or CelebA, from the folder that the authors link',
    **_FILES,
  ),
  'rfr_smaller_hole': mapping.Format(
    note='g_N.pth of the variant for smaller holes, trained by its code',
    model={'smaller_hole': True},
    **_FILES,
  ),
}

NAMES = {
  name: hub.Named('rfr', (hub.by_hand(f'g_N.pth of {data}', 'generator.pth'),))
  for name, data in (('paris', 'Paris StreetView'), ('celeba', 'CelebA'))
}
