"""LaMa's published weights: the authors' checkpoints, and the archives that IOPaint made of them.

best.ckpt, in big-lama.zip and in the folders of lama-models.zip, holds the training's state dict,
with the perceptual loss and the evaluator among it. big-lama.pt is a traced program with the
generator in it. Whatever precedes a network's keys is cut off, and what belongs to neither network
is not read (`Format.mixed`).
"""

from typing import Any

from jaxinpaint.weights import hub, mapping

PAPER = mapping.Paper(
  title='Resolution-robust Large Mask Inpainting with Fourier Convolutions',
  authors='Suvorov, Logacheva, Mashikhin and others',
  venue='WACV',
  year=2022,
  url='https://arxiv.org/abs/2109.07161',
  idea='fast Fourier convolutions, large masks, a perceptual loss of segmentation features',
  reference="authors' code",
)

FIRST_BLOCK = 5  # its number in the generator's sequence of modules


def _norm(key: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  return mapping.norm(key, 'generator', path, statistics=True)


def transform_entries(key: str, path: tuple[str, ...], local: bool = False) -> list[mapping.Entry]:
  """Entries of a SpectralTransform; `key` ends in a dot or is empty."""
  entries = []
  units = {'fu': 'fourier'} | ({'lfu': 'local_fourier'} if local else {})
  for theirs, ours in units.items():
    entries += unit_entries(f'{key}{theirs}.', (*path, ours))
  for theirs, ours in (('conv1.0', 'conv1'), ('conv2', 'conv2')):
    entries += mapping.conv(f'{key}{theirs}', 'generator', (*path, ours), bias=False)
  return [*entries, *_norm(f'{key}conv1.1', (*path, 'bn1'))]


def unit_entries(key: str, path: tuple[str, ...]) -> list[mapping.Entry]:
  """Entries of a FourierUnit; `key` ends in a dot or is empty."""
  kernel = mapping.conv(f'{key}conv_layer', 'generator', (*path, 'conv'), bias=False)
  return [*kernel, *_norm(f'{key}bn', (*path, 'bn'))]


def ffc_entries(
  key: str,
  path: tuple[str, ...],
  *,
  from_global: bool = True,
  to_global: bool = True,
  local: bool = False,
) -> list[mapping.Entry]:
  """Entries of an FFC; `key` ends in a dot or is empty.

  Args:
    key: of the FFC_BN_ACT.
    path: of the layer.
    from_global: whether its input has a global part; the local one is always there.
    to_global: whether its output has one.
    local: whether the spectral transform has a local Fourier unit.
  """
  entries: list[mapping.Entry] = []
  sources = {'l': 'local'} | ({'g': 'global'} if from_global else {})
  targets = {'l': 'local'} | ({'g': 'global'} if to_global else {})
  for target, whole in targets.items():
    for source, part in sources.items():
      theirs, ours = f'{key}ffc.conv{source}2{target}', (*path, f'{part}_{whole}')
      if source == target == 'g':
        entries += transform_entries(f'{theirs}.', ours, local)
      else:
        entries += mapping.conv(theirs, 'generator', ours, bias=False)
    entries += _norm(f'{key}bn_{target}', (*path, f'bn_{whole}'))
  return entries


def block_entries(key: str, path: tuple[str, ...], local: bool = False) -> list[mapping.Entry]:
  """Entries of an FFCResnetBlock; `key` ends in a dot or is empty."""
  return [
    entry
    for i in (1, 2)
    for entry in ffc_entries(f'{key}conv{i}.', (*path, f'ffc{i}'), local=local)
  ]


def generator_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the generator with the settings `model`."""
  only_local = dict(from_global=False, to_global=False)
  entries = ffc_entries('model.1.', ('front', 'stem'), **only_local)
  for i in (1, 2):
    entries += ffc_entries(f'model.{i + 1}.', ('front', f'down{i}'), **only_local)
  entries += ffc_entries('model.4.', ('front', 'down3'), from_global=False)
  blocks, local = model.get('blocks', 18), model.get('local_fourier', False)
  for i in range(blocks):
    entries += block_entries(f'model.{FIRST_BLOCK + i}.', ('rear', f'block{i}'), local)
  at = FIRST_BLOCK + blocks + 1  # behind the module that joins both parts
  for i in (2, 1, 0):
    entries += mapping.conv_transpose(f'model.{at}', 'generator', ('rear', f'up{i}'))
    entries += _norm(f'model.{at + 1}', ('rear', f'up{i}_bn'))
    at += 3
  entries += mapping.conv(f'model.{at + 1}', 'generator', ('rear', 'out'))
  return tuple(entries)


def discriminator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the discriminator."""
  entries: list[mapping.Entry] = []
  for i in range(6):
    entries += mapping.conv(f'model{i}.0', 'discriminator', (f'conv{i + 1}',))
    if 0 < i < 5:
      norm = mapping.norm(f'model{i}.1', 'discriminator', (f'bn{i + 1}',), statistics=True)
      entries += norm
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  return generator_entries(model) + discriminator_entries()


_COMMON = dict(
  entries=entries,
  mixed=True,
  licence='Apache-2.0 (the repository; nothing is said of the weights apart from it)',
  url='https://github.com/advimman/lama',
)

FORMATS = {
  'big': mapping.Format(
    note=(
      'best.ckpt, in the folder models of big-lama.zip; big-lama.pt and anime-manga-big-lama.pt '
      'of github.com/Sanster/models'
    ),
    **_COMMON,
  ),
  'fourier': mapping.Format(
    model=dict(blocks=9),
    note='best.ckpt of lama-fourier, for Places2 or CelebA-HQ, in lama-models.zip',
    **_COMMON,
  ),
}

_MODELS = 'https://github.com/Sanster/models/releases/download/'
_BIG = hub.File(
  'traced generator', _MODELS + 'add_big_lama/big-lama.pt', md5='e3aa4aaa15225a33ec84f9f4bc47e500'
)
_ANIME = hub.File(
  'traced generator',
  _MODELS + 'AnimeMangaInpainting/anime-manga-big-lama.pt',
  md5='29f284f36a0a510bcacf39ecf4c4d54f',
)
NAMES = {
  'big': hub.Named('big', (_BIG,)),
  'anime-manga': hub.Named('big', (_ANIME,)),
  'big-original': hub.Named('big', (hub.by_hand('models/best.ckpt of big-lama.zip', 'best.ckpt'),)),
  **{
    f'fourier-{name}': hub.Named(
      'fourier', (hub.by_hand(f'best.ckpt of lama-fourier, {data}', 'best.ckpt'),)
    )
    for name, data in (('places2', 'Places2'), ('celebahq', 'CelebA-HQ'))
  },
}
