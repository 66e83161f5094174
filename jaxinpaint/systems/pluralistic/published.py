"""The published Pluralistic checkpoints: PyTorch files of lyndonzheng/Pluralistic-Inpainting.

A folder holds latest_net_E.pth, _G.pth, _D.pth and _D_rec.pth, a plain state dict each. E and G
complete images; D and D_rec have the same keys, so their names tell them apart:

  jaxinpaint weights import pluralistic latest_net_E.pth latest_net_G.pth OUT

Most arrays are in a file twice: by the name of the layer (conv1, conv2, bypass) and by its place
in the block (model.N, shortcut.N). The reference loads them in order, so the second counts.
"""

from typing import Any

from jaxinpaint.systems.pluralistic.networks import MEMORY, SCALES
from jaxinpaint.weights import hub, mapping

IGNORE = (
  r'\.(conv1|conv2|bypass)\.module\.',  # the same arrays as model.N and shortcut.N
  rf'^attn{MEMORY}\.(alpha$|model\.)',  # of the discriminators, in every file but never used
)


def _block(
  key: str, network: str, path: tuple[str, ...], convs: tuple[int, int] = (1, 3), shortcut: int = 0
) -> list[mapping.Entry]:
  """A residual block, whose convolutions have these places."""
  entries: list[mapping.Entry] = []
  for name, place in (
    ('conv1', f'model.{convs[0]}'),
    ('conv2', f'model.{convs[1]}'),
    ('bypass', f'shortcut.{shortcut}'),
  ):
    entries += _conv(f'{key}.{place}', network, (*path, name))
  return entries


def _conv(key: str, network: str, path: tuple[str, ...], layout: str = 'conv'):
  return mapping.sn_conv(f'{key}.module', network, path, layout=layout, weight='weight_bar')


def _first(network: str) -> list[mapping.Entry]:
  return _block('block0', network, ('block0',), (0, 2), 1)


def _attention(key: str, network: str) -> list[mapping.Entry]:
  path = ('attention',)
  return [
    mapping.Entry(f'{key}.gamma', network, (*path, 'gamma')),
    *mapping.conv(f'{key}.query_conv', network, (*path, 'query')),
  ]


def encoder_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of E."""
  blocks = [f'encoder{i}' for i in range(model.get('layers', 5) - 1)]
  blocks += [f'infer_prior{i}' for i in range(model.get('prior_blocks', 6))]
  entries = _first('encoder')
  for name in (*blocks, 'prior', 'posterior'):
    entries += _block(name, 'encoder', (name,))
  return tuple(entries)


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of G."""
  network, layers = 'generator', model.get('layers', 5)
  entries = _block('generator', network, ('generator',))
  for i in range(layers):
    key, path = f'decoder{i}', (f'decoder{i}',)
    entries += mapping.norm(f'{key}.model.0', network, (*path, 'norm1'))
    entries += _conv(f'{key}.model.2', network, (*path, 'conv1'))
    entries += mapping.norm(f'{key}.model.3', network, (*path, 'norm2'))
    entries += _conv(f'{key}.model.5', network, (*path, 'conv2'), 'conv_transpose')
    entries += _conv(f'{key}.shortcut.0', network, (*path, 'bypass'), 'conv_transpose')
    if i >= layers - SCALES:
      entries += _conv(f'out{i}.model.2', network, (f'out{i}',))
  return (*entries, *attention_entries(f'attn{layers - SCALES}', network))


def attention_entries(key: str, network: str) -> tuple[mapping.Entry, ...]:
  """Entries of the attention with both terms."""
  return (
    *_attention(key, network),
    mapping.Entry(f'{key}.alpha', network, ('attention', 'alpha')),
    *_block(f'{key}.model', network, ('attention', 'block')),
  )


def discriminator_entries(model: Any, network: str = 'discriminator') -> tuple[mapping.Entry, ...]:
  """Entries of D, or of D_rec by its own network's name."""
  entries = _first(network)
  for i in range(model.get('layers', 5) - 1):
    entries += _block(f'encoder{i}', network, (f'encoder{i}',))
  entries += _attention(f'attn{MEMORY}', network)
  entries += _block('block1', network, ('block1',))
  return (*entries, *_conv('conv', network, ('conv',)))


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of all four networks."""
  return (
    *encoder_entries(model),
    *generator_entries(model),
    *discriminator_entries(model),
    *discriminator_entries(model, 'discriminator_rec'),
  )


PAPER = mapping.Paper(
  title='Pluralistic Image Completion',
  authors='Zheng, Cham, Cai',
  venue='CVPR',
  year=2019,
  url='https://arxiv.org/abs/1903.04227',
  idea='many completions of one image: a two-path VAE-GAN, short and long term attention',
  reference="authors' code",
)

FORMATS = {
  'pluralistic': mapping.Format(
    entries=entries,
    ignore=IGNORE,
    note=(
      'latest_net_E.pth and latest_net_G.pth, if wanted also latest_net_D.pth and '
      'latest_net_D_rec.pth, of a folder linked in the README: centre and random masks of '
      'CelebA-HQ, Paris, Places2 and ImageNet'
    ),
    licence='CC BY-NC 4.0: no commercial use',
    url='https://github.com/lyndonzheng/Pluralistic-Inpainting',
    names={
      r'net_E\.': 'encoder',
      r'net_G\.': 'generator',
      r'net_D\.': 'discriminator',
      r'net_D_rec\.': 'discriminator_rec',
    },
  ),
}

NAMES = {
  f'{name}-{masks}': hub.Named(
    'pluralistic',
    tuple(
      hub.by_hand(f'latest_net_{part}.pth of {data}, {masks} masks', f'latest_net_{part}.pth')
      for part in 'EG'
    ),
  )
  for name, data in (
    ('celebahq', 'CelebA-HQ'),
    ('paris', 'Paris'),
    ('places2', 'Places2'),
    ('imagenet', 'ImageNet'),
  )
  for masks in ('center', 'random')
}
