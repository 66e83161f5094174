"""The published DFNet weights: PyTorch files of hughplay/DFNet, each a plain state dict.

The encoder's convolutions lie behind a layer that pads, so their keys have an index more than the
decoder's.
"""

from typing import Any

from jaxinpaint.weights import hub, mapping


def fusion_entries(prefix: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  """Entries of one fusion block below the key `prefix`."""
  network, entries = 'generator', []
  convolutions = {'map2img.0': 'raw', 'blend.blend.0': 'blend0', 'blend.blend.3': 'blend1'}
  for theirs, ours in (convolutions | {'blend.blend.6': 'alpha'}).items():
    entries.extend(mapping.conv(f'{prefix}{theirs}.conv', network, (*path, ours)))
  for theirs, ours in (('blend.blend.1', 'blend0_bn'), ('blend.blend.4', 'blend1_bn')):
    entries.extend(mapping.norm(f'{prefix}{theirs}', network, (*path, ours), statistics=True))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  levels, entries = model.get('levels', 8), []
  norm = lambda key, name: mapping.norm(key, 'generator', (name,), statistics=True)
  for i in range(levels):
    entries.extend(mapping.conv(f'en_{i}.encode.0.conv.1', 'generator', (f'encoder{i}',)))
    if i:
      entries.extend(norm(f'en_{i}.encode.1', f'encoder{i}_bn'))
    entries.extend(mapping.conv(f'de_{i}.decode.0.conv', 'generator', (f'decoder{i}',)))
    entries.extend(norm(f'de_{i}.decode.1', f'decoder{i}_bn'))
  for i in range(min(levels, 6)):
    entries.extend(fusion_entries(f'fuse_{i}.', (f'fusion{i}',)))
  return tuple(entries)


PAPER = mapping.Paper(
  title='Deep Fusion Network for Image Completion',
  authors='Hong, Xiong, Ji, Fan',
  venue='ACM Multimedia',
  year=2019,
  url='https://arxiv.org/abs/1904.08060',
  idea='fusion blocks that blend with the known part at six scales',
  reference="authors' code",
)

FORMATS = {
  'dfnet': mapping.Format(
    entries=entries,
    note='model_places2.pth (512 x 512) or model_celeba.pth (256 x 256)',
    licence='CC BY-NC 4.0: no commercial use',
    url='https://github.com/hughplay/DFNet',
    model={'channel_order': 'bgr'},
  ),
}

NAMES = {
  data: hub.Named('dfnet', (hub.by_hand(f'model_{data}.pth', f'model_{data}.pth'),))
  for data in ('places2', 'celeba')
}
