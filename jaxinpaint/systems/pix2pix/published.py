"""pix2pix's checkpoints: what affinelayer/pix2pix-tensorflow saves.

Keys are names of TensorFlow's variables. options.json, which the code writes beside them, has the
widths of the networks; it may be given, too:

  jaxinpaint weights import pix2pix model-200000 options.json OUT

The published models translate pictures of other kinds (facades, maps, shoes); none fills holes.
"""

from collections.abc import Mapping
from typing import Any

from jaxinpaint.weights import mapping

IGNORE = (
  r'/batch_normalization/moving_(mean|variance)$',  # stored and never used by its code
  r'/Adam(_1)?$',  # the optimizers' states
  r'(^|/)beta[12]_power(_\d+)?$',
  r'ExponentialMovingAverage$',  # of logged losses
  r'(^|/)(global_step|biased|local_step)$',
)


def _layer(
  key: str, network: str, name: str, norm: str = '', transposed: bool = False
) -> list[mapping.Entry]:
  scope = f'{key}/{"conv2d_transpose" if transposed else "conv2d"}'
  layout = 'tf_conv_transpose' if transposed else 'same'
  entries = [
    mapping.Entry(f'{scope}/kernel', network, (name, 'kernel'), layout),
    mapping.Entry(f'{scope}/bias', network, (name, 'bias')),
  ]
  if norm:
    for theirs, ours in (('gamma', 'scale'), ('beta', 'bias')):
      entries.append(mapping.Entry(f'{key}/batch_normalization/{theirs}', network, (norm, ours)))
  return entries


def generator_entries(levels: int = 8) -> tuple[mapping.Entry, ...]:
  """Entries of the generator; `levels` as in networks.Generator."""
  entries: list[mapping.Entry] = []
  for kind, transposed in (('encoder', False), ('decoder', True)):
    for i in range(1, levels + 1):
      name = f'{kind}{i}'
      norm = f'{name}_bn' if i > 1 else ''
      entries += _layer(f'generator/{kind}_{i}', 'generator', name, norm, transposed)
  return tuple(entries)


def discriminator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the critic."""
  entries: list[mapping.Entry] = []
  for i in range(1, 6):
    norm = f'bn{i}' if 1 < i < 5 else ''
    entries += _layer(f'discriminator/layer_{i}', 'discriminator', f'conv{i}', norm)
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model.get('levels', 8)) + discriminator_entries()


def settings(content: Mapping[str, Any]) -> dict[str, Any]:
  """The widths of both networks, of a checkpoint's options.json.

  Raises:
    mapping.MappingError: it is none, or of networks that are not here.
  """
  if content.get('separable_conv'):
    raise mapping.MappingError(
      'options.json says separable_conv: that variant of the networks is not here'
    )
  try:
    return {'width': int(content['ngf']), 'discriminator_width': int(content['ndf'])}
  except (KeyError, TypeError, ValueError) as error:
    raise mapping.MappingError(
      'the JSON file holds no "ngf" and "ndf", the widths of the networks: give the options.json '
      'that lies beside the checkpoint, or none'
    ) from error


PAPER = mapping.Paper(
  title='Image-to-Image Translation with Conditional Adversarial Networks',
  authors='Isola, Zhu, Zhou and Efros',
  venue='CVPR',
  year=2017,
  url='https://arxiv.org/abs/1611.07004',
  idea='image translation by a U-Net, conditional patch critic',
  reference='port (the one of the survey)',
)

FORMATS = {
  'tensorflow': mapping.Format(
    entries=entries,
    ignore=IGNORE,
    settings=settings,
    note=(
      'model-STEP, what the code saves, and, if wanted, its options.json; the published ones '
      '(facades, cityscapes, maps, edges2shoes, edges2handbags) are not of inpainting'
    ),
    licence='none stated',
    url='https://github.com/affinelayer/pix2pix-tensorflow',
  ),
}
