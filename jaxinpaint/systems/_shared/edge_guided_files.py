"""Where the arrays of EdgeConnect's checkpoints go, for every system that uses its networks.

knazeri/edge-connect has four files for each data set: EdgeModel_gen.pth and InpaintingModel_gen.pth
hold {'iteration', 'generator': state dict}, EdgeModel_dis.pth and InpaintingModel_dis.pth hold
{'discriminator': state dict}. A discriminator's file has the arrays of conv1 a second time, as
features.0.
"""

from typing import Any

from jaxinpaint.weights import mapping

IGNORE = (r'^features\.',)  # aliases in the discriminators' files
UNWRAP = (
  'generator:edge_generator',
  'generator:generator',
  'discriminator:edge_discriminator',
  'discriminator:discriminator',
)


def generator_entries(
  model: Any, network: str = 'generator', *, spectral_norm: bool = False
) -> tuple[mapping.Entry, ...]:
  """Entries of one generator with the settings `model`."""
  entries: list[mapping.Entry] = []
  normed = mapping.sn_conv if spectral_norm else mapping.conv
  for i in range(3):
    entries.extend(normed(f'encoder.{3 * i + 1}', network, ('body', f'encoder{i}')))
  for i in range(model.get('blocks', 8)):
    for number, name in ((1, 'conv1'), (5, 'conv2')):
      key, bias = f'middle.{i}.conv_block.{number}', not spectral_norm
      entries.extend(normed(key, network, ('body', f'middle{i}', name), bias=bias))
  for i in range(2):
    key, layer = f'decoder.{3 * i}', ('body', f'decoder{i}')
    if spectral_norm:
      entries.extend(mapping.sn_conv(key, network, layer, layout='conv_transpose'))
    else:
      entries.extend(mapping.conv_transpose(key, network, layer))
  entries.extend(mapping.conv('decoder.7', network, ('body', 'decoder2')))
  return tuple(entries)


def discriminator_entries(network: str = 'discriminator') -> tuple[mapping.Entry, ...]:
  """Entries of one patch discriminator."""
  entries: list[mapping.Entry] = []
  for i in range(1, 6):
    entries.extend(mapping.sn_conv(f'conv{i}.0', network, (f'conv{i}',), bias=False))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of all four networks."""
  spectral_norm = model.get('use_spectral_norm', True)
  return (
    *generator_entries(model, 'edge_generator', spectral_norm=spectral_norm),
    *generator_entries(model),
    *discriminator_entries('edge_discriminator'),
    *discriminator_entries(),
  )
