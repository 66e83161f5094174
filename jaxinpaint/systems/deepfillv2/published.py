"""The published DeepFill v2 checkpoints.

Official: TensorFlow checkpoints (snap-*.index, .data, .meta) of JiahuiYu/generative_inpainting.
Port: PyTorch files of nipponjo/deepfillv2-pytorch, states_tf_*.pth converted from the official
ones, and states_pt_*.pth, trained on with a network that pads in another way. Which of the two a
file is, its keys tell.
"""

from typing import Any

from jaxinpaint.systems._shared import coarse_to_fine_files as files
from jaxinpaint.weights import hub, mapping


def tf_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks by TensorFlow's names."""
  entries = list(files.tf_generator_entries(files.layers(), gated=True))
  for i in range(1, 7):
    key, layer = f'discriminator/sn_patch_gan/conv{i}', f'conv{i}'
    entries.extend(files.tf_layer(key, 'critic', (layer,)))
    u = mapping.Entry(f'{key}/kernel_sn/u', 'critic', (layer, 'u'), 'row', 'spectral')
    entries.append(u)
  return tuple(entries)


def _critic_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the critic by the port's names, the same for both of its networks."""
  entries = []
  for i in range(1, 7):
    key, layer = f'conv{i}.conv_sn', f'conv{i}'
    entries.extend(mapping.conv(key, 'critic', (layer,)))
    entries.append(mapping.Entry(f'{key}.weight_u', 'critic', (layer, 'u'), 'column', 'spectral'))
  return tuple(entries)


def _upsampling(name: str) -> str:
  return f'{name}.conv' if name.endswith('upsample') else name


def port_tf_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the port's network with TensorFlow's layers (networks_tf.py)."""
  entries = []
  for stage, name in files.layers():
    place = files.path(stage, name, gated=True)
    entries.extend(mapping.conv(f'{_upsampling(name)}.conv', 'generator', place))
  return (*entries, *_critic_entries())


def _port_names() -> dict[tuple[str, str], str]:
  """{(stage, name): the plain port's name} of every layer of the generator."""
  down = {
    'conv2_downsample': 'down_block1.conv1_downsample',
    'conv3': 'down_block1.conv2',
    'conv4_downsample': 'down_block2.conv1_downsample',
    'conv5': 'down_block2.conv2',
  }
  up = {
    'conv13_upsample': 'up_block1.conv1_upsample',
    'conv14': 'up_block1.conv2',
    'conv15_upsample': 'up_block2.conv1_upsample',
    'conv16': 'up_block2.conv2',
    'conv17': 'conv_to_rgb',
  }
  # The layers at a quarter of the resolution are counted from conv6 on.
  middle = {'conv6': 'conv_bn1', 'conv9': 'conv_bn4', 'conv10': 'conv_bn5'}
  middle |= {f'conv{i}_atrous': f'conv_bn{i - 5}' for i in range(7, 11)}
  middle |= {'conv11': 'conv_bn6', 'conv12': 'conv_bn7'}
  theirs = {'conv1': 'conv1'} | down | middle | up
  branches = {'x': 'conv_', 'pm': 'ca_', 'all': '', '': ''}
  names = {}
  for stage, name in files.layers():
    branch = name[: name.index('conv')]
    scope = {'coarse': 'stage1', 'refine': 'stage2'}[stage]
    names[stage, name] = f'{scope}.{branches[branch]}{theirs[name.removeprefix(branch)]}'
  return names


def port_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the plain port (networks.py)."""
  entries = []
  for (stage, name), theirs in _port_names().items():
    place = files.path(stage, name, gated=True)
    entries.extend(mapping.conv(f'{_upsampling(theirs)}.conv', 'generator', place))
  return (*entries, *_critic_entries())


PAPER = mapping.Paper(
  title='Free-Form Image Inpainting with Gated Convolution',
  authors='Yu, Lin, Yang and others',
  venue='ICCV',
  year=2019,
  url='https://arxiv.org/abs/1806.03589',
  idea='gated convolutions, contextual attention, SN-PatchGAN; optionally guided by a sketch',
  reference="authors' code; critic and PyTorch variants: port",
)
PORT = dict(padding='symmetric', resize='floor', mask_steps=1)
_LICENCE = 'CC BY-NC 4.0: no commercial use'
_PORT_URL = 'https://github.com/nipponjo/deepfillv2-pytorch'
_UNWRAP = ('G:generator', 'D:critic')
FORMATS = {
  'tensorflow': mapping.Format(
    entries=tf_entries,
    ignore=files.TF_IGNORE,
    note=(
      'release_places2_256 (also called release_places2_256_deepfill_v2) or release_celeba_hq_256: '
      'the folder, or the prefix snap-N of its files'
    ),
    licence=_LICENCE,
    url='https://github.com/JiahuiYu/generative_inpainting',
    model=dict(channel_order='bgr'),
  ),
  'pytorch_converted': mapping.Format(
    entries=port_tf_entries,
    unwrap=_UNWRAP,
    note=(
      'states_tf_places2.pth, states_tf_celebahq.pth: converted from the official checkpoints and '
      'so run by the official network; the port runs them without propagation of attention '
      '(fuse=False) and feeds RGB. Whether the conversion reordered the channels is not known: RGB '
      'is taken'
    ),
    licence=_LICENCE,
    url=_PORT_URL,
  ),
  'pytorch': mapping.Format(
    entries=port_entries,
    unwrap=_UNWRAP,
    ignore=(r'contextual_attention\.fuse_weight$',),
    note='states_pt_places2.pth, states_pt_celebahq.pth, and what the port trains',
    licence='none stated',
    url=_PORT_URL,
    model=PORT,
  ),
}

NAMES = {
  **{
    name: hub.Named('tensorflow', (hub.by_hand(f'the folder {folder}', folder),))
    for name, folder in (('places2', 'release_places2_256'), ('celebahq', 'release_celeba_hq_256'))
  },
  **{
    f'{data}-{kind}': hub.Named(
      format, (hub.by_hand(f'{prefix}_{data}.pth', f'{prefix}_{data}.pth'),)
    )
    for kind, format, prefix in (
      ('converted', 'pytorch_converted', 'states_tf'),
      ('port', 'pytorch', 'states_pt'),
    )
    for data in ('places2', 'celebahq')
  },
}
