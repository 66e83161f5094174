"""The published MAT checkpoints, as far as they are plain state dicts.

  jaxinpaint weights import mat Places_512_FullData_G.pth OUT

The authors publish pickles (Places.pkl, CelebA-HQ.pkl, FFHQ.pkl, CelebA-HQ-256.pkl) of whole Python
objects, whose code the pickle brings along; such files are not read here. Whoever trusts one can
load it by the authors' program and save G_ema.state_dict() with torch.save: that file is read, of
networks of 512 and of 256 pixels.
"""

import math
from typing import Any

from jaxinpaint.systems.mat.networks import DEPTHS, SQUARE
from jaxinpaint.weights import hub, mapping

# The masks of shifted windows and the resampling filters, constants here.
IGNORE = (r'\.attn_mask$', r'\.resample_filter$')
# The convolutions that double the resolution: the code turns their kernels round.
_TURNED = {'conv': 'conv_turned', 'modulated_conv': 'modulated_conv_turned'}


def _weight(key: str, path: tuple[str, ...], layout: str, bias: bool = True) -> list[mapping.Entry]:
  entries = [mapping.Entry(f'{key}.weight', 'generator', (*path, 'kernel'), layout)]
  if bias:
    entries.append(mapping.Entry(f'{key}.bias', 'generator', (*path, 'bias')))
  return entries


def _conv(key: str, path: tuple[str, ...], *, up: bool = False) -> list[mapping.Entry]:
  return _weight(key, path, _TURNED['conv'] if up else 'conv')


def _dense(key: str, path: tuple[str, ...]) -> list[mapping.Entry]:
  return _weight(key, path, 'dense')


def _styled(
  key: str, path: tuple[str, ...], *, up: bool = False, noise: int | None = None
) -> list[mapping.Entry]:
  """A modulated convolution with its bias, and the stored noise of this number."""
  layout = _TURNED['modulated_conv'] if up else 'modulated_conv'
  entries = _weight(f'{key}.conv', (*path, 'conv'), layout, bias=False)
  entries += _dense(f'{key}.conv.affine', (*path, 'conv', 'modulation'))
  entries.append(mapping.Entry(f'{key}.bias', 'generator', (*path, 'bias')))
  if noise is not None:
    strength = (f'{key}.noise_strength', 'generator', (*path, 'noise_weight'), 'scalar')
    stored = (f'{key}.noise_const', 'generator', (f'noise{noise}',), 'plane', 'buffers')
    entries += [mapping.Entry(*strength), mapping.Entry(*stored)]
  return entries


def mapping_entries(prefix: str = 'mapping', layers: int = 8) -> tuple[mapping.Entry, ...]:
  """Entries of the mapping of z to w, with its average."""
  entries = [mapping.Entry(f'{prefix}.w_avg', 'generator', ('w_avg',), 'same', 'buffers')]
  for i in range(layers):
    entries += _dense(f'{prefix}.fc{i}', ('mapping', f'dense{i + 1}'))
  return tuple(entries)


def block_entries(key: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of a transformer block."""
  entries: list[mapping.Entry] = []
  for name in ('q', 'k', 'v', 'proj'):
    entries += _dense(f'{key}.attn.{name}', (*path, 'attention', name))
  for theirs, ours in (('fuse', 'fuse'), ('mlp.fc1', 'fc1'), ('mlp.fc2', 'fc2')):
    entries += _dense(f'{key}.{theirs}', (*path, ours))
  return tuple(entries)


def stage1_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of stage 1."""
  size, tokens = model.get('size', 512), model.get('tokens', 64)
  depths = tuple(model.get('depths', DEPTHS))
  halvings, middle = int(math.log2(size // tokens)), len(depths) // 2
  stage = 'synthesis.first_stage'
  entries = _conv(f'{stage}.conv_first.conv', ('stage1', 'first', 'conv'))
  for i in range(halvings):
    entries += _conv(f'{stage}.enc_conv.{i}.conv', ('stage1', f'encoder{i}', 'conv'))
    key, path = f'{stage}.dec_conv.{i}', ('stage1', f'decoder{i}')
    entries += _styled(f'{key}.conv0', (*path, 'conv0'), up=True)
    entries += _styled(f'{key}.conv1', (*path, 'conv1'))
    entries += _styled(f'{key}.toRGB', (*path, 'rgb'))
  for i, depth in enumerate(depths):
    key, path = f'{stage}.tran.{i}', ('stage1', f'transformer{i}')
    if i:
      resample = (*path, 'resample', 'conv')
      entries += _conv(f'{key}.downsample.conv.conv', resample, up=i > middle)
    for j in range(depth):
      entries += block_entries(f'{key}.blocks.{j}', (*path, f'block{j}'))
    entries += _conv(f'{key}.conv.conv', (*path, 'conv', 'conv'))
  for i in range(int(math.log2(tokens)) - 2):
    entries += _conv(f'{stage}.down_conv.{i}', ('stage1', f'style{i}'))
  for theirs, ours in (
    ('to_style', 'to_style'),
    ('ws_style', 'w_style'),
    ('to_square', 'to_square'),
  ):
    entries += _dense(f'{stage}.{theirs}', ('stage1', ours))
  return tuple(entries)


def stage2_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of stage 2."""
  size = model.get('size', 512)
  entries: list[mapping.Entry] = []
  sides = [SQUARE << i for i in range(int(math.log2(size // SQUARE)) + 1)]
  for i, side in enumerate(sides):
    at, own = f'{side}x{side}', lambda part, side=side: ('stage2', f'encoder{side}_{part}')
    for part in (0, 1):
      entries += _conv(f'synthesis.enc.EncConv_Block_{at}.conv{part}', own(part))
    key = f'synthesis.dec.Dec_{at}'
    if side == SQUARE:
      entries += _conv(f'{key}.conv0', ('stage2', f'decoder{side}_0'))
      entries += _styled(f'{key}.conv1', ('stage2', f'decoder{side}_1'), noise=0)
      entries += _styled(f'{key}.toRGB', ('stage2', f'decoder{side}_rgb'))
    else:
      path = ('stage2', f'decoder{side}')
      entries += _styled(f'{key}.conv0', (*path, 'conv0'), up=True, noise=2 * i - 1)
      entries += _styled(f'{key}.conv1', (*path, 'conv1'), noise=2 * i)
      entries += _styled(f'{key}.toRGB', (*path, 'rgb'))
  entries += _dense('synthesis.to_square', ('stage2', 'to_square'))
  for i in range(3):
    entries += _conv(f'synthesis.to_style.conv.{i}', ('stage2', f'style{i}'))
  return (*entries, *_dense('synthesis.to_style.fc', ('stage2', 'to_style')))


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator."""
  return (
    *mapping_entries(layers=model.get('mlp_layers', 8)),
    *stage1_entries(model),
    *stage2_entries(model),
  )


def discriminator_entries(size: int) -> tuple[mapping.Entry, ...]:
  """Entries of both critics, by the names of the code; no published state dict has them."""
  made: list[mapping.Entry] = []
  for network, key, suffix in (('critic', 'Dis', ''), ('critic_stage1', 'Dis_stg1', '_stg1')):
    own = mapping.conv(f'{key}.0.conv', network, ('from_rgb',))
    made += own
    side, i = size, 1
    while side > 4:
      for theirs, ours in (('conv0', 'conv1'), ('conv1', 'conv2')):
        made += mapping.conv(f'{key}.{i}.{theirs}', network, (f'block{side}', ours))
      made += mapping.conv(f'{key}.{i}.skip', network, (f'block{side}', 'skip'), bias=False)
      side, i = side // 2, i + 1
    made += mapping.conv(f'{key}.{i + 1}', network, ('conv4',))
    for j in (0, 1):
      made += mapping.dense(f'fc{j}{suffix}', network, (f'dense{j + 1}',))
  return tuple(made)


PAPER = mapping.Paper(
  title='MAT: Mask-Aware Transformer for Large Hole Image Inpainting',
  authors='Li, Lin, Zhou and others',
  venue='CVPR',
  year=2022,
  url='https://arxiv.org/abs/2203.15270',
  idea='windowed attention to known tokens, then a modulated U-Net; many completions of one image',
  reference="authors' code",
)

_SHARED = dict(
  entries=entries,
  ignore=IGNORE,
  licence=(
    'not known to us: see https://github.com/fenglinglwb/MAT; its code builds on StyleGAN2-ADA '
    '(Nvidia Source Code License, no commercial use)'
  ),
)

FORMATS = {
  'mat': mapping.Format(
    note=(
      "Places_512_FullData_G.pth, the generator's state dict as IOPaint serves it. The authors' "
      'own files (*.pkl) are pickles of Python objects, which are not read here: save '
      'G_ema.state_dict() of one by their program'
    ),
    url='https://github.com/Sanster/models/releases/download/add_mat/Places_512_FullData_G.pth',
    **_SHARED,
  ),
  'mat_256': mapping.Format(
    note='G_ema.state_dict() of CelebA-HQ-256.pkl, saved by the program of the authors',
    url='https://github.com/fenglinglwb/MAT',
    model={'size': 256},
    **_SHARED,
  ),
}

_G = hub.File('generator', FORMATS['mat'].url, md5='8ca927835fa3f5e21d65ffcb165377ed')
NAMES = {
  'places2-512': hub.Named('mat', (_G,)),
  'celebahq-256': hub.Named('mat_256', (hub.by_hand('G_ema.state_dict()', 'generator.pth'),)),
}
