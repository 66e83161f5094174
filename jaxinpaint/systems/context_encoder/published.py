"""The published context encoder: PyTorch files of BoyuanJiang/context_encoder_pytorch.

model/netG_streetview.pth holds {'epoch', 'state_dict'} of the generator, model/netlocalD.pth the
same of the critic. In both, layers are numbered by their places in one Sequential: `main.14.weight`
is the bottleneck's convolution.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping


def _add(
  entries: list[mapping.Entry], network: str, index: int, name: str, norm: str, transposed: bool
) -> None:
  kind = mapping.conv_transpose if transposed else mapping.conv
  entries += kind(f'main.{index}', network, (name,), bias=False)
  if norm:
    entries += mapping.norm(f'main.{index + 1}', network, (norm,), statistics=True)


def generator_entries(levels: int = 5) -> tuple[mapping.Entry, ...]:
  """Entries of the generator; `levels` as in networks.Generator."""
  entries: list[mapping.Entry] = []
  for i in range(1, levels + 1):
    index = 3 * i - 4 if i > 1 else 0
    _add(entries, 'generator', index, f'conv{i}', f'bn{i}' if i > 1 else '', False)
  index = 3 * levels - 1
  _add(entries, 'generator', index, 'bottleneck', 'bottleneck_bn', False)
  for i in range(1, levels + 1):
    norm = f'deconv{i}_bn' if i < levels else ''
    _add(entries, 'generator', index + 3 * i, f'deconv{i}', norm, True)
  return tuple(entries)


def discriminator_entries(levels: int = 4) -> tuple[mapping.Entry, ...]:
  """Entries of the critic; `levels` as in networks.Discriminator."""
  entries: list[mapping.Entry] = []
  for i in range(1, levels + 2):
    index = 3 * i - 4 if i > 1 else 0
    norm = f'bn{i}' if 1 < i <= levels else ''
    _add(entries, 'discriminator', index, f'conv{i}', norm, False)
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  levels = model.get('levels', 5)
  return generator_entries(levels) + discriminator_entries(levels - 1)


PAPER = mapping.Paper(
  title='Context Encoders: Feature Learning by Inpainting',
  authors='Pathak, Krahenbuhl, Donahue and others',
  venue='CVPR',
  year=2016,
  url='https://arxiv.org/abs/1604.07379',
  idea='the middle square drawn from a bottleneck, DCGAN critic',
  reference='port (the one of the survey)',
)

FORMATS = {
  'streetview': mapping.Format(
    entries=entries,
    unwrap=('state_dict:generator', 'state_dict:discriminator'),
    note=(
      'netG_streetview.pth and, if wanted, netlocalD.pth: the middle 64 x 64 of Paris StreetView '
      'at 128 x 128'
    ),
    licence='none stated',
    url='https://github.com/BoyuanJiang/context_encoder_pytorch',
  ),
}

NAMES = {
  'streetview': hub.Named(
    'streetview', (hub.by_hand('netG_streetview.pth', 'netG_streetview.pth'),)
  ),
}
