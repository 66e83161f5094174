"""Key maps of the published files from which LFR's structure reconstructor is built.

- StyleGAN2 of rosinality/stylegan2-pytorch: {'g', 'd', 'g_ema', 'latent_avg'}; pSp's decoder is
  its g_ema with the keys decoder.*.
- pSp (eladrich/pixel2style2pixel): {'state_dict': encoder.*, decoder.*; 'latent_avg', 'opts'}.
- IR-SE50 (features.arcface), which the encoder's body starts from.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.features import arcface
from jaxinpaint.layers.irse import DEPTHS
from jaxinpaint.layers.stylegan2_networks import Generator, MappingNetwork, latent_count
from jaxinpaint.weights import mapping, reader

# The files hold the resampling filters as buffers; here they are constants.
IGNORE = (r'\.(blur|upsample)\.kernel$', r'(conv2|skip)\.0\.kernel$')


def generator_entries(
  network: str, size: int, prefix: str = '', *, mlp_layers: int = 8
) -> tuple[mapping.Entry, ...]:
  """Where the keys PREFIX* of a generator of `size` pixels go, without the average latent."""
  entries: list[mapping.Entry] = []

  def put(key, path, layout='same', collection='params'):
    entries.append(mapping.Entry(f'{prefix}{key}', network, path, layout, collection))

  def modulated(key, path):
    put(f'{key}.weight', (*path, 'kernel'), 'modulated_conv')
    put(f'{key}.modulation.weight', (*path, 'modulation', 'kernel'), 'dense')
    put(f'{key}.modulation.bias', (*path, 'modulation', 'bias'))

  def styled(key, name):
    modulated(f'{key}.conv', ('synthesis', name, 'conv'))
    put(f'{key}.noise.weight', ('synthesis', name, 'noise_weight'))
    put(f'{key}.activate.bias', ('synthesis', name, 'bias'))

  def to_rgb(key, name):
    modulated(f'{key}.conv', ('synthesis', name, 'conv'))
    put(f'{key}.bias', ('synthesis', name, 'bias'), 'channels')

  for i in range(1, mlp_layers + 1):
    put(f'style.{i}.weight', ('style', f'dense{i}', 'kernel'), 'dense')
    put(f'style.{i}.bias', ('style', f'dense{i}', 'bias'))
  put('input.input', ('synthesis', 'const'), 'picture')
  styled('conv1', 'conv4')
  to_rgb('to_rgb1', 'rgb4')
  count = latent_count(size)
  for i in range(count // 2 - 1):
    side = 8 << i
    styled(f'convs.{2 * i}', f'conv{side}_up')
    styled(f'convs.{2 * i + 1}', f'conv{side}')
    to_rgb(f'to_rgbs.{i}', f'rgb{side}')
  for i in range(count - 1):
    put(f'noises.noise_{i}', (f'noise{i}',), 'picture', 'buffers')
  return tuple(entries)


def discriminator_entries(network: str, size: int, prefix: str = '') -> tuple[mapping.Entry, ...]:
  """Where the keys PREFIX* of a discriminator of `size` pixels go."""
  entries: list[mapping.Entry] = []

  def put(key, path, layout='same'):
    entries.append(mapping.Entry(f'{prefix}{key}', network, path, layout))

  def conv(weight, bias, path):
    put(f'{weight}.weight', (*path, 'kernel'), 'conv')
    if bias:
      put(f'{bias}.bias', (*path, 'bias'))

  conv('convs.0.0', 'convs.0.1', ('from_rgb',))
  for i in range(1, latent_count(size) // 2):
    key, name = f'convs.{i}', f'block{size >> (i - 1)}'
    conv(f'{key}.conv1.0', f'{key}.conv1.1', (name, 'conv1'))
    conv(f'{key}.conv2.1', f'{key}.conv2.2', (name, 'conv2'))
    conv(f'{key}.skip.1', '', (name, 'skip'))
  conv('final_conv.0', 'final_conv.1', ('conv4',))
  for i in range(2):
    entries += mapping.dense(f'{prefix}final_linear.{i}', network, (f'dense{i + 1}',))
  return tuple(entries)


def encoder_entries(
  network: str,
  styles: int,
  prefix: str = '',
  *,
  size: int = 256,
  depths: Sequence[int] = DEPTHS,
) -> tuple[mapping.Entry, ...]:
  """Where the keys PREFIX* of an encoder of `styles` latents go."""
  entries = list(arcface.body_entries(network, ('body',), prefix, depths))
  for i in (1, 2):
    entries += mapping.conv(f'{prefix}latlayer{i}', network, (f'lateral{i}',))
  for i in range(styles):
    coarsest = size // 16
    side = coarsest << ((i >= 3) + (i >= 7))
    for k in range(max(1, side.bit_length() - 1)):
      entries += mapping.conv(
        f'{prefix}styles.{i}.convs.{2 * k}', network, (f'style{i}', f'conv{k}')
      )
    entries += mapping.dense(f'{prefix}styles.{i}.linear', network, (f'style{i}', 'linear'))
  return tuple(entries)


def psp_entries(
  encoder: str,
  generator: str,
  *,
  generator_size: int = 1024,
  size: int = 256,
  depths: Sequence[int] = DEPTHS,
  mlp_layers: int = 8,
) -> tuple[mapping.Entry, ...]:
  """Where the keys of a whole pSp file go (a format without `unwrap`), for these network names.

  The average latent goes to the generator's 'buffers'.
  """
  styles = latent_count(generator_size)
  return (
    *encoder_entries(encoder, styles, 'state_dict.encoder.', size=size, depths=depths),
    *generator_entries(generator, generator_size, 'state_dict.decoder.', mlp_layers=mlp_layers),
    mapping.Entry('latent_avg', generator, ('latent_avg',), 'rows', 'buffers'),
  )


def load_generator(
  file: str | os.PathLike, generator: Generator | None = None
) -> dict[str, dict[str, Any]]:
  """Variables {'params', 'buffers'} of a generator, read from a StyleGAN2 or a pSp file.

  Args:
    file: {'g_ema', 'latent_avg', ...} as rosinality's convert_weight.py and train.py write, or a
      pSp file. If it has no average latent (train.py writes none), the mean of 4096 seeded draws is
      used.
    generator: the generator that the file must fit; None: 1024 pixels as published.

  Raises:
    ValueError: the file holds something else, or a generator of another size.
  """
  generator = generator or Generator(1024)
  content = reader.read(file)
  state = {k: v for k, v in mapping.flatten(content).items() if isinstance(v, np.ndarray)}
  prefix = next((p for p in ('g_ema.', 'state_dict.decoder.') if _any_under(state, p)), '')
  entries = generator_entries('g', generator.size, prefix, mlp_layers=generator.mlp_layers)
  others = [r'^latent_avg$'] + ([rf'^(?!{re.escape(prefix)})'] if prefix else [])
  count = latent_count(generator.size)
  shapes = jax.eval_shape(
    generator.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, count, generator.style_dim), jnp.float32),
  )
  buffers = {k: v for k, v in shapes['buffers'].items() if k != 'latent_avg'}
  expected = {'params': {'g': shapes['params']}, 'stats': {'g': {'buffers': buffers}}}
  try:
    tree = mapping.convert(state, entries, (*IGNORE, *others), expected=expected)
  except mapping.MappingError as error:
    raise ValueError(
      f'{file} does not hold a StyleGAN2 generator of {generator.size} pixels: {error}'
    ) from error
  variables = {'params': tree['params']['g'], 'buffers': tree['stats']['g']['buffers']}
  average = state.get('latent_avg')
  if average is None:
    average = average_latent(generator, variables['params'])
  average = np.asarray(average, np.float32).reshape(-1, generator.style_dim)
  variables['buffers']['latent_avg'] = np.broadcast_to(average, (count, generator.style_dim)).copy()
  return variables


def _any_under(state: Mapping[str, Any], prefix: str) -> bool:
  return any(key.startswith(prefix) for key in state)


def average_latent(
  generator: Generator, params: Mapping[str, Any], draws: int = 4096
) -> np.ndarray:
  """f32[style_dim], the mean of w over `draws` seeded draws of z."""
  z = jax.random.normal(jax.random.key(0), (draws, generator.style_dim))
  style = MappingNetwork(generator.style_dim, generator.mlp_layers)
  apply = jax.jit(lambda p, z: style.apply({'params': p}, z).mean(0))
  return np.asarray(apply(params['style'], z))


def body_of(
  variables: Mapping[str, Any], in_channels: int = 3
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The parameters and statistics of an encoder's body, taken from IR-SE50.

  Args:
    variables: of `arcface.load`.
    in_channels: of the encoder; channels beyond three get zero kernels.

  Returns:
    ({'body': parameters}, {'batch_stats': {'body': statistics}}).
  """
  body = dict(variables['params']['body'])
  kernel = np.asarray(body['input_conv']['kernel'])
  more = in_channels - kernel.shape[2]
  body['input_conv'] = {'kernel': np.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))}
  return {'body': body}, {'batch_stats': {'body': dict(variables['batch_stats']['body'])}}
