"""The published PConv weights: PyTorch files of naoto0804/pytorch-inpainting-with-partial-conv.

A file holds {'n_iter', 'model': state dict, 'optimizer'}. Beside every convolution's weights lies
mask_conv.weight, which counts known values: ones, never trained. These weights were trained with
`renorm='mean'` (networks.py). NVIDIA's repository has the layer and no inpainting weights.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

IGNORE = (r'(^|\.)mask_conv\.weight$',)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  entries = []
  for theirs, ours in (('enc', 'encoder'), ('dec', 'decoder')):
    for i in range(1, model.get('levels', 7) + 1):
      last = (theirs, i) == ('dec', 1)  # a bare convolution with a bias
      path = (f'{ours}{i}',) if last else (f'{ours}{i}', 'conv')
      key = f'{theirs}_{i}'
      entries.extend(mapping.conv(f'{key}.conv.input_conv', 'generator', path, bias=last))
      if i > 1:
        entries.extend(mapping.norm(f'{key}.bn', 'generator', (path[0], 'bn'), statistics=True))
  return tuple(entries)


PAPER = mapping.Paper(
  title='Image Inpainting for Irregular Holes Using Partial Convolutions',
  authors='Liu, Reda, Shih and others',
  venue='ECCV',
  year=2018,
  url='https://arxiv.org/abs/1804.07723',
  idea='partial convolutions, which see known pixels only',
  reference="layer: authors' code; network and loss: port",
)

FORMATS = {
  'pconv': mapping.Format(
    entries=entries,
    unwrap=('model',),
    ignore=IGNORE,
    note='the file of release v0.0.0 of the port, a state after a million steps',
    licence='none stated',
    url='https://github.com/naoto0804/pytorch-inpainting-with-partial-conv',
    model={'renorm': 'mean'},
  ),
}

NAMES = {
  'release': hub.Named('pconv', (hub.by_hand('the file of release v0.0.0', 'release.pth'),)),
}
