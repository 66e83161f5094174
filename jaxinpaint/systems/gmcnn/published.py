"""The published GMCNN checkpoints of the authors' PyTorch code.

A file N_net_GM.pth holds the generator's plain state dict; the critics are never saved. Only the
faces of CelebA-HQ at 256 x 256 are published in this form. The other published weights are
TensorFlow checkpoints of other names, which are not read.
"""

from typing import Any

from jaxinpaint.systems.gmcnn import networks
from jaxinpaint.weights import hub, mapping

# Convolutions of the columns with kernels of 7, 5 and 3, by their place in the code's lists. What
# is between them is upsampling.
LAYERS = {7: (*range(12),), 5: (*range(12), 13, 14), 3: (*range(12), 13, 14, 16, 17)}


def generator_entries(model: Any = None) -> tuple[mapping.Entry, ...]:
  """Entries of the generator, which has the same layers for all settings `model`."""
  del model
  entries: list[mapping.Entry] = []
  for number, size in enumerate(networks.KERNELS, start=1):
    for i in LAYERS[size]:
      path = (f'column{size}', f'conv{i}')
      entries.extend(mapping.conv(f'EB{number}.{i}', 'generator', path))
  for i in range(2):
    entries.extend(mapping.conv(f'decoding_layers.{i}', 'generator', (f'merge{i}',)))
  return tuple(entries)


def critic_entries() -> tuple[mapping.Entry, ...]:
  """Entries of both critics with spectral norm, as the code holds them while it trains.

  Its wrapper calls the weight before normalisation weight_bar.
  """
  entries: list[mapping.Entry] = []
  for which in ('local', 'global'):
    for i in range(5):
      key, network = f'{which}_discriminator.layers.{i}.module', f'{which}_critic'
      path, layout = ((f'conv{i}',), 'conv') if i < 4 else (('dense',), 'dense')
      entries.extend(mapping.sn_conv(key, network, path, layout=layout, weight='weight_bar'))
  return tuple(entries)


PAPER = mapping.Paper(
  title='Image Inpainting via Generative Multi-column Convolutional Neural Networks',
  authors='Wang, Tao, Qi and others',
  venue='NeurIPS',
  year=2018,
  url='https://arxiv.org/abs/1810.08771',
  idea='three columns of different reach, confidence-driven L1, ID-MRF, two critics',
  reference="authors' code (PyTorch)",
)
FORMATS = {
  'pytorch': mapping.Format(
    entries=generator_entries,
    note='N_net_GM.pth of CelebA-HQ at 256 x 256, or as the PyTorch code saves it',
    licence='none stated',
    url='https://github.com/shepnerd/inpainting_gmcnn',
  ),
}

NAMES = {
  'celebahq': hub.Named('pytorch', (hub.by_hand('N_net_GM.pth of CelebA-HQ', 'net_GM.pth'),)),
}
