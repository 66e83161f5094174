"""The networks of MI-GAN against the outputs of the authors' code."""

import functools
import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.stylegan2 import modulated_conv2d, scaled_leaky_relu
from jaxinpaint.systems.migan import networks, published
from jaxinpaint.weights import mapping


@functools.cache
def shapes(size, tensors):
  sized = lambda c: jax.ShapeDtypeStruct((1, size, size, c), np.float32)
  module = networks.Generator(size, tensors=tensors)
  return jax.eval_shape(module.init, jax.random.key(0), sized(3), sized(1))


def generator(case, size, tensors):
  """Variables of a case's generator."""
  wanted = shapes(size, tensors)
  convert = functools.partial(mapping.convert, entries=published.entries({'size': size}))
  tree = of_sums(case.state(), convert) if tensors else convert(case.state())
  params, buffers = tree['params']['generator'], tree['stats']['generator']
  found = {'params': params, **buffers}
  assert jax.tree.map(np.shape, found) == jax.tree.map(lambda x: x.shape, wanted)
  return found


def of_sums(state, convert):
  """The tree of a state dict of the training form, which has w0 ... w8 where the merged has weight.

  Noise is that of a pair's second convolution there, and filters have other names.
  """
  trees = []
  for i in range(networks.TENSORS):
    named = {re.sub(rf'\.w{i}$', '.weight', k): v for k, v in state.items()}
    named = {re.sub(r'\.conv2\.noise_', '.noise_', k): v for k, v in named.items()}
    trees.append(convert({k: v for k, v in named.items() if not OTHERS.search(k)}))

  def stack(*nodes):
    stacked = {}
    for name, value in nodes[0].items():
      values = [node[name] for node in nodes]
      if isinstance(value, dict):
        stacked[name] = stack(*values)
      elif name == 'kernel' and value.ndim == 4:  # the first layer has one of them
        differ = (values[0] != values[1]).any()
        stacked['kernels'] = np.stack(values if differ else values[:1])
      else:
        stacked[name] = value
    return stacked

  return stack(*trees)


OTHERS = re.compile(r'\.w\d$|resample_filter$')


def critic_entries(size):
  """Critics are not published, so the library has no need of these."""
  entries = [*mapping.conv(f'b{size}.fromrgb', 'critic', ('from_rgb',))]
  for r in networks.sides(size)[1:]:
    for i in (1, 2):
      entries += published.separable_entries(f'b{r}.conv{i}.', 'critic', (f'block{r}', f'conv{i}'))
    entries += mapping.conv(f'b{r}.skip', 'critic', (f'block{r}', 'skip'), bias=False)
  entries += published.separable_entries('b4.conv.', 'critic', ('conv4',))
  for theirs, ours in (('fc', 'dense1'), ('out', 'dense2')):
    entries += mapping.dense(f'b4.{theirs}', 'critic', (ours,))
  return entries


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def run(variables, x, size, tensors, noise='stored'):
  """(picture, its parts, the encoder's maps) of what the networks see, f32[B,size,size,4]."""
  parts = {k: {p: v[k] for p, v in variables.items() if k in v} for k in ('encoder', 'synthesis')}
  small, maps = networks.Encoder(size, tensors=tensors).apply(parts['encoder'], x)
  image, rgb = networks.Synthesis(size, tensors=tensors).apply(
    parts['synthesis'], small, maps, noise
  )
  return image, rgb, maps


@pytest.mark.slow
@goldens.cases('migan_generator', 'migan_generator_512')
def test_generator(case):
  data = case.data()
  x = goldens.nhwc(data['x'])
  size = x.shape[1]
  image, _, _ = run(generator(case, size, 0), x, size, 0)
  step = size // data['y'].shape[-1]
  goldens.assert_close(goldens.nchw(image)[:, :, ::step, ::step], data['y'], what='y')


@goldens.cases('migan_train_generator64')
def test_training_generator(case):
  data, variables = case.data(), generator(case, 64, 9)
  x = goldens.nhwc(data['x'])
  image, rgb, _ = run(variables, x, 64, 9)
  goldens.assert_close(goldens.nchw(image), data['y'], what='y')
  for side in (8, 32):
    goldens.assert_close(goldens.nchw(rgb[side]), data[f'rgb_{side}'], what=f'rgb_{side}')
  image, _, _ = run(variables, x, 64, 9, 'none')
  goldens.assert_close(goldens.nchw(image), data['y_nonoise'], what='y_nonoise')


@goldens.cases('migan_train_discriminator64')
def test_critic(case):
  convert = functools.partial(mapping.convert, entries=critic_entries(64))
  params = of_sums(case.state(), convert)['params']['critic']
  data = case.data()
  judge = jax.jit(lambda params, x: networks.Discriminator(64).apply({'params': params}, x))
  goldens.assert_close(judge(params, goldens.nhwc(data['x'])), data['y'])


@goldens.cases('migan_separable_conv', 'migan_separable_conv_down', 'migan_separable_conv_up_noise')
def test_separable_convolutions(case):
  data, options = case.data(), {}
  if noise := 'noise' in case.name:
    options = dict(up=True, noise_side=32)
  elif 'down' in case.name:
    options = dict(down=True)
  tree = mapping.convert(case.state(), published.separable_entries('', 'n', (), noise))
  variables = {'params': tree['params']['n'], **tree['stats'].get('n', {})}
  module = networks.SeparableConv(24, tensors=0, **options)
  got = jax.jit(module.apply)(variables, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(got), data['y'])


@goldens.cases('migan_conv_reparam_down', 'migan_conv_reparam_up')
def test_kernels_as_sums(case):
  """Of the code's other convolution, 3x3 across all channels, which the published form lacks."""
  state, data = case.state(), case.data()
  kernel = networks.unit_kernel(np.stack([state[f'w{i}'].transpose(2, 3, 1, 0) for i in range(4)]))
  x = jnp.asarray(goldens.nhwc(data['x']))
  up = 'up' in case.name
  style = jnp.ones(x.shape[::3])
  y = modulated_conv2d(x, kernel, style, demodulate=False, up=up, down=not up)
  if up:
    y += state['noise_strength'] * state['noise_const'][None, ..., None]
  got = scaled_leaky_relu(y + state['bias'])
  goldens.assert_close(goldens.nchw(got), data['y'])
