"""The published GLCIC checkpoints: PyTorch files of otenim/GLCIC-PyTorch.

There are three files: `model_cn` (the generator) and `model_cd` (the discriminator), plain state
dicts whose names have no ending, and `config.json`. Its "mpv", the pixel value that filled the
holes in training, becomes config.model.mpv. Give all three to the import:

  jaxinpaint weights import glcic model_cn model_cd config.json OUT

No checkpoint of the TensorFlow variant is published; its format reads what its code saves.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinpaint.weights import hub, mapping

TF_IGNORE = (
  r'^completion_net/conv(_bn)?6/',  # in every file, discarded by its code
  r'/Adam(_1)?$',  # the optimizers' states
  r'^beta[12]_power(_\d+)?$',
)


def generator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the generator."""
  entries = []
  for i in range(1, 18):
    name, kind = f'conv{i}', mapping.conv
    if i in (13, 15):
      name, kind = f'deconv{i}', mapping.conv_transpose
    entries.extend(kind(name, 'generator', (name,)))
    if i < 17:
      entries.extend(mapping.norm(f'bn{i}', 'generator', (f'bn{i}',), statistics=True))
  return tuple(entries)


def discriminator_entries(global_layers: int = 5) -> tuple[mapping.Entry, ...]:
  """Entries of the discriminator; `global_layers` as in networks.Discriminator."""
  entries = []
  for key, name, layers in (('model_ld', 'local', 5), ('model_gd', 'whole', global_layers)):
    for i in range(1, layers + 1):
      entries.extend(mapping.conv(f'{key}.conv{i}', 'discriminator', (name, f'conv{i}')))
      path = (name, f'bn{i}')
      entries.extend(mapping.norm(f'{key}.bn{i}', 'discriminator', path, statistics=True))
    entries.extend(mapping.dense(f'{key}.linear{layers + 1}', 'discriminator', (name, 'dense')))
  entries.extend(mapping.dense('linear1', 'discriminator', ('dense',)))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of both networks."""
  if model.variant == 'tf':
    return tf_generator_entries() + tf_discriminator_entries(model.separate_heads)
  layers = {'celeba': 5, 'places2': 6}[model.discriminator]
  return generator_entries() + discriminator_entries(layers)


def tf_generator_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the TensorFlow variant's generator; the keys are names of variables."""
  entries = []
  for theirs, ours, norm in (
    *((f'conv{i}', f'conv{i}', f'conv_bn{i}') for i in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)),
    *((f'dilate_conv{i}', f'dilated{i}', '') for i in (1, 2, 3, 4)),
    *((f'deconv{i}', f'deconv{i}', f'deconv_bn{i}') for i in (1, 2)),
  ):
    layout = 'tf_conv_transpose' if ours.startswith('deconv') else 'same'
    key = f'completion_net/{theirs}'
    entries.append(mapping.Entry(f'{key}/w', 'generator', (ours, 'kernel'), layout))
    entries.append(mapping.Entry(f'{key}/b', 'generator', (ours, 'bias')))
    if norm:
      entries.extend(_tf_norm(f'completion_net/{norm}', 'generator', (f'{ours}_bn',)))
  return tuple(entries)


def tf_discriminator_entries(separate_heads: bool = True) -> tuple[mapping.Entry, ...]:
  """Entries of the TensorFlow variant's discriminator."""
  entries = []

  def add(key: str, *path: str) -> None:
    entries.append(mapping.Entry(key, 'discriminator', path))

  for scope, name, layers in (('local', 'local', 5), ('global', 'whole', 6)):
    scope = f'{scope}_discriminator'
    for i in range(1, layers + 1):
      add(f'{scope}/conv{i}/weights', name, f'conv{i}', 'kernel')
      add(f'{scope}/conv{i}/biases', name, f'conv{i}', 'bias')
      entries.extend(_tf_norm(f'{scope}/bn{i}', 'discriminator', (name, f'bn{i}')))
    add(f'{scope}/linear/W', name, 'dense', 'kernel')
    add(f'{scope}/linear/bias', name, 'dense', 'bias')
  heads = (('fake_loss', 'dense_fake'), ('real_loss', 'dense_real'))
  for scope, name in heads if separate_heads else (('fake_loss', 'dense'),):
    add(f'{scope}/W', name, 'kernel')
    add(f'{scope}/bias', name, 'bias')
  return tuple(entries)


def _tf_norm(key: str, network: str, path: tuple[str, ...]) -> tuple[mapping.Entry, ...]:
  return (
    mapping.Entry(f'{key}/scale', network, (*path, 'scale')),
    mapping.Entry(f'{key}/offset', network, (*path, 'bias')),
  )


def settings(content: Mapping[str, Any]) -> dict[str, Any]:
  """{'mpv': ...} of a run's config.json.

  Raises:
    mapping.MappingError: it holds no mean pixel value.
  """
  try:
    mpv = np.asarray(content['mpv'], np.float64).ravel()
  except (KeyError, TypeError, ValueError) as error:
    raise mapping.MappingError(
      'the JSON file holds no "mpv" (red, green and blue in [0, 1]): give the config.json that '
      'lies beside model_cn'
    ) from error
  if mpv.shape != (3,) or not ((mpv >= 0) & (mpv <= 1)).all():
    raise mapping.MappingError(f'"mpv" {content["mpv"]} must be three numbers in [0, 1]')
  return {'mpv': tuple(float(v) for v in mpv)}


PAPER = mapping.Paper(
  title='Globally and Locally Consistent Image Completion',
  authors='Iizuka, Simo-Serra and Ishikawa',
  venue='ACM Transactions on Graphics 36 (4)',
  year=2017,
  url='https://doi.org/10.1145/3072959.3073659',
  idea='globally and locally consistent completion, three phases',
  reference='port (PyTorch, and the TensorFlow one of the survey)',
)
_LICENCE = 'MIT (the repository; nothing else is said of the weights)'
_URL = 'https://github.com/otenim/GLCIC-PyTorch'
FORMATS = {
  'celeba': mapping.Format(
    entries=entries,
    settings=settings,
    note=(
      'model_cn and, if wanted, model_cd, with their config.json (which holds the mean pixel '
      'value): CelebA at 160 x 160; also what that code saves as phase_N/model_cn_stepM'
    ),
    licence=_LICENCE,
    url=_URL,
  ),
  'places2': mapping.Format(
    entries=entries,
    settings=settings,
    note=(
      "files that code saves with arc 'places2' at 256 x 256 with local parts of 128 x 128; none "
      'are published'
    ),
    licence=_LICENCE,
    url=_URL,
    model=dict(discriminator='places2', image_size=256, local_size=128),
  ),
  'tf': mapping.Format(
    entries=entries,
    ignore=TF_IGNORE,
    note='checkpoints/model-N, what the code saves at its 512 x 512; none are published',
    licence='none stated',
    url='https://github.com/shinseung428/GlobalLocalImageCompletion_TF',
    model=dict(variant='tf', separate_heads=True, image_size=512, local_size=128),
  ),
}

NAMES = {
  'celeba': hub.Named(
    'celeba',
    (
      hub.by_hand('model_cn', 'model_cn'),
      hub.by_hand('config.json', 'config.json', read=lambda path: json.loads(path.read_text())),
    ),
  ),
}
