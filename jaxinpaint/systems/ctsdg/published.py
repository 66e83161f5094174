"""The published CTSDG checkpoints: PyTorch files of Xiefan-Guo/CTSDG.

One file holds {'n_iter', 'generator': state dict, 'discriminator': state dict}. The discriminator's
state dict has the first layer of each branch a second time, under features.0, an alias.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

IGNORE = (r'(^|\.)(texture|structure)_branch\.features\.',)


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  entries = []
  for kind in ('texture', 'structure'):
    for i in range(1, model.get('levels', 7) + 1):
      entries.extend(_partial(f'ec_{kind}_{i}', f'{kind}_encoder{i}', norm=i > 1))
      entries.extend(_partial(f'dc_{kind}_{i}', f'{kind}_decoder{i}'))
    key = f'{kind}_feature_projection'
    entries.extend(projection_entries(f'{key}.', f'{kind}_resolver', (f'{kind}_projection',)))
  if model.get('use_bigff', True):
    entries.extend(bigff_entries('bigff.', ('bigff',)))
  if model.get('use_cfa', True):
    entries.extend(cfa_entries('cfa.', ('cfa',)))
  for theirs, ours in (('fusion_layer1', 'fusion1'), ('fusion_layer2', 'fusion2')):
    entries.extend(mapping.conv(f'{theirs}.0', 'generator', (ours,)))
  entries.extend(mapping.conv('out_layer.0', 'generator', ('out',)))
  return tuple(entries)


def _partial(key: str, name: str, norm: bool = True) -> tuple[mapping.Entry, ...]:
  return partial_entries(f'{key}.', (name,), norm=norm)


def partial_entries(
  prefix: str, path: tuple[str, ...], *, norm: bool = True
) -> tuple[mapping.Entry, ...]:
  """Entries of one partial convolution below the key `prefix`."""
  entries = mapping.conv(f'{prefix}conv', 'generator', (*path, 'conv'), bias=False)
  if norm:
    entries += mapping.norm(f'{prefix}bn', 'generator', (*path, 'bn'), statistics=True)
  return entries


def projection_entries(
  prefix: str, resolver: str, path: tuple[str, ...]
) -> tuple[mapping.Entry, ...]:
  """Entries of a projection head below `prefix`; `resolver` names its bottleneck."""
  entries = []
  for i in (1, 2):
    key = f'{prefix}{resolver}'
    entries.extend(mapping.conv(f'{key}.conv{i}', 'generator', (*path, f'conv{i}'), bias=False))
    entries.extend(mapping.norm(f'{key}.bn{i}', 'generator', (*path, f'bn{i}'), statistics=True))
  entries.extend(mapping.conv(f'{prefix}out_layer.0', 'generator', (*path, 'out')))
  return tuple(entries)


def bigff_entries(prefix: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of the fusion below `prefix`."""
  entries = []
  for kind in ('texture', 'structure'):
    name = f'{kind}_gamma'
    entries.append(mapping.Entry(prefix + name, 'generator', (*path, name)))
    entries.extend(mapping.conv(f'{prefix}{kind}_gate.0', 'generator', (*path, f'{kind}_gate')))
  return tuple(entries)


def cfa_entries(prefix: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of the contextual feature aggregation below `prefix`."""
  names = {f'dilated_conv_{i}.0': f'dilated{i}' for i in range(4)}
  names |= {'weight_calc.0': 'weight1', 'weight_calc.2': 'weight2'}
  entries = []
  for theirs, ours in names.items():
    entries.extend(mapping.conv(f'{prefix}msfa.{theirs}', 'generator', (*path, ours)))
  return tuple(entries)


def discriminator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of both branches and the edge detector."""
  network, entries = 'discriminator', []
  for branch in ('texture', 'structure'):
    for i in range(1, 6):
      key, path = f'{branch}_branch.conv{i}.0', (branch, f'conv{i}')
      entries.extend(mapping.sn_conv(key, network, path, bias=False))
  layers = (('projection.0', 'projection.1'), ('res_layer.0', 'res_layer.1'))
  layers += (('res_layer.3', 'res_layer.4'),)
  for i, (conv, norm) in enumerate(layers):
    path = ('edge_detector', f'conv{i}')
    entries.extend(mapping.conv(f'edge_detector.{conv}', network, path))
    path = ('edge_detector', f'bn{i}')
    entries.extend(mapping.norm(f'edge_detector.{norm}', network, path, statistics=True))
  path = ('edge_detector', 'out')
  entries.extend(mapping.conv('edge_detector.out_layer.0', network, path))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model) + discriminator_entries()


PAPER = mapping.Paper(
  title='Image Inpainting via Conditional Texture and Structure Dual Generation',
  authors='Guo, Yang, Huang',
  venue='ICCV',
  year=2021,
  url='https://arxiv.org/abs/2108.09760',
  idea='texture and structure generated from each other',
  reference="authors' code",
)

FORMATS = {
  'ctsdg': mapping.Format(
    entries=entries,
    unwrap=('generator', 'discriminator'),
    ignore=IGNORE,
    note='ITERATION.pt of CelebA, Paris StreetView or Places2, from the folder the authors link',
    licence='MIT (of the repository; nothing is said of the weights by themselves)',
    url='https://github.com/Xiefan-Guo/CTSDG',
    model={'wrapped_gray': True},
  ),
}

NAMES = {
  name: hub.Named('ctsdg', (hub.by_hand(f'ITERATION.pt of {data}', 'generator.pt'),))
  for name, data in (('celeba', 'CelebA'), ('paris', 'Paris StreetView'), ('places2', 'Places2'))
}
