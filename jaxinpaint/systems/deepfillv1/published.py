"""The published DeepFill v1 checkpoints.

Official: TensorFlow checkpoints (snap-*.index, .data, .meta) of JiahuiYu/generative_inpainting,
each with all networks. Port: PyTorch files of daa233/generative-inpainting-pytorch, either trained
there (symmetric padding, other critics) or converted from an official checkpoint. The converted
ones belong to the official network, although the port runs them with its own padding.
"""

import re
from typing import Any

from jaxinpaint.systems._shared import coarse_to_fine_files as files
from jaxinpaint.weights import hub, mapping

TF_IGNORE = files.TF_IGNORE


def layers(model: Any) -> tuple[tuple[str, str], ...]:
  """(stage, name) of every layer of a generator with the settings `model`."""
  return files.layers(attention=model.get('use_attention', True))


def tf_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of all networks by TensorFlow's names."""
  entries = list(files.tf_generator_entries(layers(model), gated=False))
  for which in ('local', 'global'):
    network = f'{which}_critic'
    for i in range(1, 5):
      key = f'discriminator/discriminator_{which}/conv{i}'
      entries.extend(files.tf_layer(key, network, (f'conv{i}',)))
    entries.extend(files.tf_layer(f'discriminator/dout_{which}_fc', network, ('dense',)))
  return tuple(entries)


def port_generator_entries(model: Any, prefix: str = '') -> tuple[mapping.Entry, ...]:
  """Entries of the generator by the port's names."""
  entries = []
  for stage, name in layers(model):
    theirs = re.sub('^x|_upsample$', '', name)
    scope = {'coarse': 'coarse_generator', 'refine': 'fine_generator'}[stage]
    entries.extend(mapping.conv(f'{prefix}{scope}.{theirs}.conv', 'generator', (stage, name)))
  return tuple(entries)


def port_critic_entries(network: str) -> tuple[mapping.Entry, ...]:
  """Entries of 'local_critic' or 'global_critic' by the port's names."""
  entries = []
  for i in range(1, 5):
    entries.extend(mapping.conv(f'dis_conv_module.conv{i}.conv', network, (f'conv{i}',)))
  entries.extend(mapping.dense('linear', network, ('dense',)))
  return tuple(entries)


def port_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of all networks in the files that the port's training writes.

  The two critics have the same keys; in the file they are under localD and globalD.
  """
  critics = (port_critic_entries(network) for network in ('local_critic', 'global_critic'))
  return sum(critics, port_generator_entries(model))


def trainer_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator in a state dict of the port's whole trainer."""
  return port_generator_entries(model, 'netG.')


PAPER = mapping.Paper(
  title='Generative Image Inpainting with Contextual Attention',
  authors='Yu, Lin, Yang and others',
  venue='CVPR',
  year=2018,
  url='https://arxiv.org/abs/1801.07892',
  idea='contextual attention, coarse to fine, two WGAN-GP critics',
  reference="authors' code; its PyTorch variant: port",
)
PORT = dict(padding='symmetric', resize='floor', mask_steps=1, key_norm='sum', critic='port')
_LICENCE = 'CC BY-NC 4.0: no commercial use'
_PORT_URL = 'https://github.com/daa233/generative-inpainting-pytorch'
FORMATS = {
  'tensorflow': mapping.Format(
    entries=tf_entries,
    ignore=TF_IGNORE,
    note=(
      'release_places2_256, release_celeba_256, release_celeba_hq_256 or release_imagenet_256: the '
      'folder, or the prefix snap-N of its files'
    ),
    licence=_LICENCE,
    url='https://github.com/JiahuiYu/generative_inpainting/tree/v1.0.0',
    model=dict(channel_order='bgr'),
  ),
  'pytorch': mapping.Format(
    entries=port_entries,
    unwrap=('localD:local_critic', 'globalD:global_critic'),
    note='gen_N.pt and, if wanted, dis_N.pt, as the port trains them',
    licence='MIT (of the repository; nothing is said of the weights by themselves)',
    url=_PORT_URL,
    model=PORT,
  ),
  'pytorch_converted': mapping.Format(
    entries=trainer_entries,
    ignore=(r'^(localD|globalD)\.',),
    note=(
      'torch_model.p, converted from an official checkpoint and so run by the official network, '
      'not by the one it is published with; the channel order is taken to be the official BGR'
    ),
    licence=_LICENCE,
    url=_PORT_URL,
    model=dict(channel_order='bgr'),
  ),
}

NAMES = {
  **{
    name: hub.Named('tensorflow', (hub.by_hand(f'the folder {folder}', folder),))
    for name, folder in (
      ('places2', 'release_places2_256'),
      ('celeba', 'release_celeba_256'),
      ('celebahq', 'release_celeba_hq_256'),
      ('imagenet', 'release_imagenet_256'),
    )
  },
  'converted': hub.Named('pytorch_converted', (hub.by_hand('torch_model.p', 'torch_model.p'),)),
}
