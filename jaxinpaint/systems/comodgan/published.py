"""The published Co-Mod-GAN weights: PyTorch files of the port that comes with MI-GAN.

  jaxinpaint weights import comodgan comodgan_512_places2.pt OUT
  jaxinpaint weights import comodgan comodgan_256_places2.pt OUT

A file is the state dict of a generator (mapping.*, encoder.*, synthesis.*); critics are not
published. The authors' own files (co-mod-gan-places2-050000.pkl and others) are pickles of
TensorFlow 1 networks that hold program code. They are not read: take the port's files, or convert
them with the authors' code to the names that are listed here.
"""

from typing import Any

from jaxinpaint.systems.comodgan.networks import sides
from jaxinpaint.weights import hub, mapping

NETWORK = 'generator'
# The files hold the resampling filters as buffers; here they are constants.
IGNORE = (r'(^|\.)resample_filter$',)


def mapping_entries(model: Any, prefix: str = 'mapping.') -> tuple[mapping.Entry, ...]:
  """Entries of the mapping PREFIX* and of the average of w."""
  entries = [mapping.Entry(f'{prefix}w_avg', NETWORK, ('latent_avg',), collection='buffers')]
  for i in range(model.get('mlp_layers', 8)):
    entries += mapping.dense(f'{prefix}fc{i}', NETWORK, ('style', f'dense{i + 1}'))
  return tuple(entries)


def encoder_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of encoder.*."""
  size = model.get('size', 512)
  conv = lambda key, name: mapping.conv(f'encoder.{key}', NETWORK, ('encoder', name))
  entries = [*conv(f'b{size}.fromrgb', 'from_rgb')]
  for r in sides(size)[1:]:
    entries += [*conv(f'b{r}.conv0', f'conv{r}'), *conv(f'b{r}.conv1', f'conv{r}_down')]
  entries += conv('b4.conv', 'conv4')
  return (*entries, *mapping.dense('encoder.b4.fc', NETWORK, ('encoder', 'dense')))


def synthesis_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of synthesis.*, noise pictures included."""
  size = model.get('size', 512)
  entries = list(mapping.dense('synthesis.b4.fc', NETWORK, ('synthesis', 'dense')))

  def modulated(key, name):
    path = ('synthesis', name, 'conv')
    entries.append(mapping.Entry(f'synthesis.{key}.weight', NETWORK, (*path, 'kernel'), 'conv'))
    entries.append(mapping.Entry(f'synthesis.{key}.bias', NETWORK, ('synthesis', name, 'bias')))
    entries.extend(mapping.dense(f'synthesis.{key}.affine', NETWORK, (*path, 'modulation')))

  def styled(key, name, number):
    modulated(key, name)
    key, path = f'synthesis.{key}', ('synthesis', name, 'noise_weight')
    entries.append(mapping.Entry(f'{key}.noise_strength', NETWORK, path, 'scalar'))
    noise = (f'noise{number}',)
    entries.append(mapping.Entry(f'{key}.noise_const', NETWORK, noise, 'plane', 'buffers'))

  styled('b4.conv', 'conv4', 0)
  modulated('b4.torgb', 'rgb4')
  for i, r in enumerate(sides(size)[1:]):
    styled(f'b{r}.conv0', f'conv{r}_up', 2 * i + 1)
    styled(f'b{r}.conv1', f'conv{r}', 2 * i + 2)
    modulated(f'b{r}.torgb', f'rgb{r}')
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of a whole generator."""
  return (*mapping_entries(model), *encoder_entries(model), *synthesis_entries(model))


PAPER = mapping.Paper(
  title='Large Scale Image Completion via Co-Modulated Generative Adversarial Networks',
  authors='Zhao, Cui, Sheng and others',
  venue='ICLR',
  year=2021,
  url='https://arxiv.org/abs/2103.10428',
  idea='StyleGAN2 whose layers are modulated by the image and by random latents',
  reference='port (the one that comes with MI-GAN)',
)

_FACTS: dict[str, Any] = dict(
  entries=entries,
  ignore=IGNORE,
  licence='that of the repository of MI-GAN; not checked here',
  url='https://github.com/Picsart-AI-Research/MI-GAN',
)

FORMATS = {
  'comodgan': mapping.Format(
    note='comodgan_512_places2.pt, which MI-GAN learns from: its README links it', **_FACTS
  ),
  'comodgan_256': mapping.Format(
    note='comodgan_256_places2.pt and comodgan_256_ffhq.pt, linked there',
    model={'size': 256},
    **_FACTS,
  ),
}

NAMES = {
  f'{data}-{size}': hub.Named(
    'comodgan' if size == 512 else 'comodgan_256',
    (hub.by_hand(f'comodgan_{size}_{data}.pt', f'comodgan_{size}_{data}.pt'),),
  )
  for data, size in (('places2', 512), ('places2', 256), ('ffhq', 256))
}
