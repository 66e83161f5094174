"""The key names of the MESFF system's checkpoints.

The authors have published neither code nor weights, so `FORMATS` is empty. `entries` maps the names
of a PyTorch state dict of this structure (enc0, ifkpb.enc1.conv1, mesff.key.fc1,
body.0.noise_map.branch0, ...), which the tests' reference outputs use.
"""

from typing import Any

from jaxinpaint.weights import mapping

_BASICS = ('enc1', 'enc2', 'enc3', 'mid', 'dec1', 'dec2', 'dec3')


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings config.model, of which only switches are read."""
  all_entries = []

  def add(key: str, path: tuple[str, ...], kind: mapping.Layer = mapping.conv) -> None:
    all_entries.extend(kind(key, 'generator', path))

  for name in ('enc0', 'enc1', 'enc2', 'dec2'):
    add(name, (name,))
  for name in ('dec0', 'dec1'):
    add(name, (name,), mapping.conv_transpose)
  for part in _BASICS:
    for i in (1, 2, 3):
      add(f'ifkpb.{part}.conv{i}', ('ifkpb', part, f'conv{i}'))
  add('ifkpb.kernels', ('ifkpb', 'kernels'))
  if model.get('use_mesff', True):
    all_entries.extend(mesff_entries('mesff.', ('mesff',), skip=model.get('mesff_skip', 'add')))
  bottleneck = model.get('bottleneck', 'sfi')
  if bottleneck == 'sfi':
    for i in range(model.get('blocks', 6)):
      all_entries.extend(sfi_entries(f'body.{i}.', (f'body{i}',)))
  elif bottleneck == 'resnet':
    for i in range(model.get('resnet_blocks', 8)):
      for theirs, ours in (('conv_block.1', 'conv1'), ('conv_block.5', 'conv2')):
        add(f'body.{i}.{theirs}', (f'body{i}', ours))
  if len(model.get('filter_rates', (1,))) > 1:
    add('merge_rates', ('merge_rates',))
  return tuple(all_entries)


def mesff_entries(
  prefix: str, path: tuple[str, ...], *, skip: str = 'add'
) -> tuple[mapping.Entry, ...]:
  """Entries of one MESFF module below the key `prefix`."""
  names = ('conv_in', 'scale0', 'scale1', 'scale2', 'weight1', 'weight2', 'conv_out')
  entries = []
  for name in names + (('merge',) if skip == 'concat' else ()):
    entries.extend(mapping.conv(prefix + name, 'generator', (*path, name)))
  for part in ('key', 'value'):
    for name in ('fc1', 'fc2'):
      target = (*path, 'attention', part, name)
      entries.extend(mapping.dense(f'{prefix}{part}.{name}', 'generator', target))
  return tuple(entries)


def sfi_entries(prefix: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of one SFI block below the key `prefix`."""
  entries = []
  for name in ('to_map', 'merge'):
    entries.extend(mapping.conv(prefix + name, 'generator', (*path, name)))
  for block in ('noise_map', 'noise', 'enhance'):
    for name in ('branch0', 'branch1', 'branch2', 'branch3', 'fuse', 'gate'):
      entries.extend(mapping.conv(f'{prefix}{block}.{name}', 'generator', (*path, block, name)))
  return tuple(entries)


PAPER = mapping.Paper(
  title='Image Inpainting Based on Perceptual Inference and External Spatial Prior Features',
  authors='Wu, Zhang, Wang, Chen, Qin',
  idea='MESFF + SFI: perceptual inference and external spatial prior features',
  reference='transcribed from the paper',
)

FORMATS: dict[str, mapping.Format] = {}
