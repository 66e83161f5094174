"""The published Shift-Net checkpoints: PyTorch state dicts of Zhaoyi-Yan/Shift-Net_pytorch.

{epoch}_net_G.pth holds the generator, {epoch}_net_D.pth the discriminator. The U-Net's keys nest as
its blocks do: each block is a Sequential with the next deeper one in it.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  levels = model.get('levels', 8)
  keys = _face_keys if model.get('variant', 'unet') == 'face' else _unet_keys
  statistics = model.get('norm', 'instance') == 'batch'
  entries = []
  for i in range(levels):
    down, down_norm, up, up_norm = keys(i, levels)
    entries.extend(mapping.conv(down, 'generator', (f'down{i}',)))
    entries.extend(mapping.conv_transpose(up, 'generator', (f'up{i}',)))
    if 0 < i < levels - 1:
      path = (f'down_norm{i}',)
      entries.extend(mapping.norm(down_norm, 'generator', path, statistics=statistics))
    if i:
      entries.extend(mapping.norm(up_norm, 'generator', (f'up_norm{i}',), statistics=statistics))
  return tuple(entries)


def _unet_keys(i: int, levels: int) -> tuple[str, str, str, str]:
  """Keys of level i: the convolution down, its norm, the transposed one up, its norm."""
  prefix = 'model.model.' + ''.join(f'{1 if n == 0 else 3}.model.' for n in range(i))
  if i == 0:
    places = (0, None, 3, None)
  elif i == levels - 1:
    places = (1, None, 3, 4)
  elif i == 2:  # guidance and shift stand between
    places = (1, 2, 7, 8)
  else:
    places = (1, 2, 5, 6)
  return tuple('' if p is None else f'{prefix}{p}' for p in places)


def _face_keys(i: int, levels: int) -> tuple[str, str, str, str]:
  n = i + 1
  return f'e{n}_c', f'e{n}_norm', f'd{levels - i}_dc', f'd{levels - i}_norm'


def discriminator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the patch discriminator with the settings `model`."""
  batch = model.get('norm', 'instance') == 'batch'
  conv = mapping.sn_conv if model.get('spectral', True) else mapping.conv
  entries = []
  for i, (layer, norm) in enumerate(((0, 0), (2, 3), (5, 6), (8, 9), (11, 0)), start=1):
    entries.extend(
      conv(f'model.{layer}', 'discriminator', (f'conv{i}',), bias=not (norm and batch))
    )
    if norm:
      path = (f'norm{i}',)
      entries.extend(mapping.norm(f'model.{norm}', 'discriminator', path, statistics=batch))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model) + discriminator_entries(model)


PAPER = mapping.Paper(
  title='Shift-Net: Image Inpainting via Deep Feature Rearrangement',
  authors='Yan, Li, Li, Zuo, Shan',
  venue='ECCV',
  year=2018,
  url='https://arxiv.org/abs/1801.09392',
  idea='a U-Net that shifts known features into the hole',
  reference="authors' code",
)
_LICENCE = 'MIT (of the repository; nothing is said of the weights by themselves)'
_URL = 'https://github.com/Zhaoyi-Yan/Shift-Net_pytorch'
FORMATS = {
  'unet': mapping.Format(
    entries=entries,
    note=(
      'EPOCH_net_G.pth and, if wanted, EPOCH_net_D.pth; published as face_center_mask.pth, for '
      'centre holes of Paris StreetView and as paris_random_mask_20_30.pth'
    ),
    licence=_LICENCE,
    url=_URL,
  ),
  'unet_batch': mapping.Format(
    entries=entries,
    note='the same, trained with --norm batch; none are published',
    licence=_LICENCE,
    url=_URL,
    model=dict(norm='batch'),
  ),
  'face': mapping.Format(
    entries=entries,
    note='face_flip_random.pth: faces with free-form holes, which are run with their mirror image',
    licence=_LICENCE,
    url=_URL,
    model=dict(variant='face', mirror='released'),
  ),
}

NAMES = {
  'face-center': hub.Named('unet', (hub.by_hand('face_center_mask.pth', 'face_center_mask.pth'),)),
  'paris-center': hub.Named(
    'unet', (hub.by_hand('the file for centre holes of Paris StreetView', 'paris_center.pth'),)
  ),
  'paris-random': hub.Named(
    'unet', (hub.by_hand('paris_random_mask_20_30.pth', 'paris_random_mask_20_30.pth'),)
  ),
  'face': hub.Named('face', (hub.by_hand('face_flip_random.pth', 'face_flip_random.pth'),)),
}
