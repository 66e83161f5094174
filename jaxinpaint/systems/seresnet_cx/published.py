"""Names of a PyTorch model of this system. Its authors published no weights.

The names are those of GLCIC's PyTorch port, with `blockN` for `convN` where a block replaces a
convolution. As in the port, each network's state dict is a separate file, with nothing around it.
With use_se_resnet=False the generator's keys are exactly the port's; only its first layer has three
input channels here.
"""

from typing import Any

from jaxinpaint.weights import mapping


def _stage(kind, key: str, norm: str, network: str, path: tuple[str, ...]) -> list[mapping.Entry]:
  """Entries of a plain layer and its norm."""
  name = key.rpartition('.')[2]
  bn = norm.rpartition('.')[2]
  entries = [*kind(key, network, (*path, name))]
  return entries + [*mapping.norm(norm, network, (*path, bn), statistics=True)]


def block_entries(
  key: str, network: str, path: tuple[str, ...], shortcut: bool
) -> tuple[mapping.Entry, ...]:
  """Entries of an SE-ResNet block.

  Args:
    key: prefix of the block's keys: '' or ends in a dot.
    network: name of the network.
    path: path of the block in the network's parameters.
    shortcut: the block's shortcut has layers.
  """
  entries = []
  pairs = [('conv1', 'bn1', 'conv1', 'bn1'), ('conv2', 'bn2', 'conv2', 'bn2')]
  if shortcut:
    pairs.append(('down.0', 'down.1', 'down_conv', 'down_bn'))
  for conv, norm, our_conv, our_norm in pairs:
    entries += mapping.conv(f'{key}{conv}', network, (*path, our_conv), bias=False)
    entries += mapping.norm(f'{key}{norm}', network, (*path, our_norm), statistics=True)
  for name in ('fc1', 'fc2'):
    entries += mapping.dense(f'{key}se.{name}', network, (*path, 'se', name))
  return tuple(entries)


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  blocks = range(2, 7) if model.get('use_se_resnet', True) else ()
  entries = []
  for i in range(1, 17):
    if i in blocks:
      entries += block_entries(f'block{i}.', 'generator', (f'block{i}',), shortcut=i in (2, 4))
    elif i in (13, 15):
      entries += _stage(mapping.conv_transpose, f'deconv{i}', f'bn{i}', 'generator', ())
    else:
      entries += _stage(mapping.conv, f'conv{i}', f'bn{i}', 'generator', ())
  return (*entries, *mapping.conv('conv17', 'generator', ('conv17',)))


def discriminator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both discriminators and the layer that joins them."""
  use_se_resnet = model.get('use_se_resnet', True)
  strided = model.get('disc_tail_stride', 1) != 1
  entries = []
  for key, branch, first in (('model_ld', 'local', 2), ('model_gd', 'global', 1)):
    for i in range(first, 7):
      if i >= 4 and use_se_resnet:
        path = (branch, f'block{i}')
        shortcut = i == 4 or strided
        entries += block_entries(f'{key}.block{i}.', 'discriminator', path, shortcut)
      else:
        names = (f'{key}.conv{i}', f'{key}.bn{i}')
        entries += _stage(mapping.conv, *names, 'discriminator', (branch,))
    entries += mapping.dense(f'{key}.linear', 'discriminator', (branch, 'linear'))
  return (*entries, *mapping.dense('linear1', 'discriminator', ('linear',)))


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model) + discriminator_entries(model)


PAPER = mapping.Paper(
  title='Image Inpainting Based on New Encoder and Similarity Constraint',
  authors='Lin, Wang',
  venue='Computer Systems & Applications 30(1)',
  year=2021,
  url='http://c-s-a.org.cn/html/2021/1/7742.html',
  idea='SE-ResNet and contextual loss, three phases',
  reference='transcribed from the paper',
)


def _format(**model: Any) -> mapping.Format:
  return mapping.Format(
    entries=entries,
    note='none published: for PyTorch models built from the paper with the names of its GLCIC port',
    licence='none published',
    model=model,
  )


FORMATS = {
  'seresnet_cx': _format(),
  'strided_tail': _format(disc_tail_stride=2),
  'without_se_resnet': _format(use_se_resnet=False),
}
