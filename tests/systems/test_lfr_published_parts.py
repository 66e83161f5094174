"""The key maps of StyleGAN2, pSp and IR-SE50, checked by the reference outputs through them."""

import functools
import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinpaint import arrays
from jaxinpaint.layers import stylegan2_networks
from jaxinpaint.layers.stylegan2 import EqualDense, pixel_norm
from jaxinpaint.systems.lfr import encoder, published_parts
from jaxinpaint.weights import mapping


def shapes_of(module, *inputs):
  return jax.eval_shape(module.init, jax.random.key(0), *inputs)


@goldens.cases('stylegan2_mapping')
def test_mapping(case):
  data = case.data()
  entries = [e for e in published_parts.generator_entries('g', 8) if e.key.startswith('style.')]
  params = mapping.convert(case.state(), entries)['params']['g']['style']
  w = stylegan2_networks.MappingNetwork().apply({'params': params}, data['z'])
  goldens.assert_close(w, data['w'], what='w')
  first = EqualDense(512, 0.01, activate=True)
  h1 = first.apply({'params': params['dense1']}, pixel_norm(jnp.asarray(data['z'])))
  goldens.assert_close(h1, data['h1'], what='h1')


@goldens.cases('stylegan2_generator_64')
def test_generator(case):
  check_generator(case)


@pytest.mark.slow
@goldens.cases('stylegan2_generator_32')
def test_a_smaller_generator(case):
  check_generator(case)


def check_generator(case):
  data = case.data()
  size = data['y'].shape[-1]
  tree = mapping.convert(
    case.state(), published_parts.generator_entries('g', size), published_parts.IGNORE
  )
  variables = {'params': tree['params']['g'], **tree['stats']['g']}
  generator = stylegan2_networks.Generator(size)
  given = [jnp.asarray(goldens.nhwc(data[f'noise_{i}'])) for i in range(len(variables['buffers']))]
  # latent_avg is not in the reference's network: checked where files are loaded.
  average = jnp.zeros((len(given) + 1, 512))
  variables['buffers']['latent_avg'] = average

  @jax.jit
  def run(variables, w, noise):
    return generator.apply(variables, w, noise)

  w, mean = jnp.asarray(data['w']), jnp.asarray(data['w_mean'])
  plus = jnp.asarray(data['wplus'])
  everywhere = jnp.broadcast_to(w[:, None], plus.shape)
  short = jnp.broadcast_to(stylegan2_networks.truncate(w, mean, 0.5)[:, None], plus.shape)
  stored = [variables['buffers'][f'noise{i}'][None] for i in range(len(given))]
  for name, latents, noise in (
    ('y', everywhere, given),
    ('y_wplus', plus, given),
    ('y_wplus_buffers', plus, stored),
    ('y_trunc05', short, given),
  ):
    got = goldens.nchw(run(variables, latents, noise))
    goldens.assert_close(got, data[name], what=name)


@goldens.cases('stylegan2_discriminator_64')
def test_discriminator(case):
  data = case.data()
  size = data['x'].shape[-1]
  entries = published_parts.discriminator_entries('d', size)
  params = mapping.convert(case.state(), entries, published_parts.IGNORE)['params']['d']
  critic = stylegan2_networks.Discriminator(size)

  @jax.jit
  def run(params, x):
    last = lambda module, _: module.name == 'block8'
    y, seen = critic.apply({'params': params}, x, capture_intermediates=last)
    return y, seen['intermediates']['block8']['__call__'][0]

  y, feature = run(params, jnp.asarray(goldens.nhwc(data['x'])))
  want = data['feat']
  goldens.assert_close(goldens.nchw(feature)[:1, : want.shape[1]], want, what='features')
  goldens.assert_close(y, data['y'], what='logits')


@pytest.mark.slow
@goldens.cases('psp_encoder')
def test_encoder(case):
  data = case.data()
  styles = data['codes'].shape[1]
  tree = mapping.convert(case.state(), published_parts.encoder_entries('e', styles))
  variables = {'params': tree['params']['e'], **tree['stats']['e']}
  net = encoder.Encoder(styles)

  @jax.jit
  def run(variables, x):
    body = lambda module, _: module.name == 'body'
    codes, seen = net.apply(variables, x, capture_intermediates=body)
    return codes, seen['intermediates']['body']['__call__'][0]

  codes, stages = run(variables, jnp.asarray(goldens.nhwc(data['x'])))
  for name, stage, step in (('c1', stages[1], 2), ('c2', stages[2], 1), ('c3', stages[3], 1)):
    got = goldens.nchw(stage)[:1, : data[name].shape[1], ::step, ::step]
    # These reach 50 after up to 24 blocks, and float32 sums in another order differ in proportion.
    scale = np.abs(data[name]).max()
    goldens.assert_close(got / scale, data[name] / scale, atol=1e-5, what=name)
  goldens.assert_close(codes, data['codes'], what='codes')


@pytest.mark.slow
@goldens.cases('psp_256')
def test_psp(case):
  data = case.data()
  state = {f'state_dict.{k}': v for k, v in case.state().items()}
  state['latent_avg'] = data['latent_avg']
  entries = published_parts.psp_entries('encoder', 'decoder', generator_size=256)
  tree = mapping.convert(state, entries, published_parts.IGNORE)
  of = lambda name: {'params': tree['params'][name], **tree['stats'][name]}
  net, generator = encoder.Encoder(14), stylegan2_networks.Generator(256)

  @jax.jit
  def run(encoder_variables, variables, x):
    codes = net.apply(encoder_variables, x) + variables['buffers']['latent_avg']
    return codes, generator.apply(variables, codes)

  codes, image = run(of('encoder'), of('decoder'), jnp.asarray(goldens.nhwc(data['x'])))
  goldens.assert_close(codes, data['codes'], what='codes')
  pooled = goldens.nchw(arrays.adaptive_avg_pool(image, 64, 64))
  crop = goldens.nchw(image[:, 96:160, 96:160])
  for name, got in (('pooled', pooled), ('crop', crop)):
    goldens.assert_close(got, data[name], what=name)


@pytest.mark.parametrize('styles, want', [(14, 209_450_688), (18, 267_136_704)])
def test_encoders_of_the_published_sizes(styles, want):
  shapes = shapes_of(encoder.Encoder(styles), jnp.zeros((1, 256, 256, 3)))
  sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes['params'])]
  assert sum(sizes) == want


SMALL = dict(width=4, depths=(1, 1, 1, 1), style_dim=8)


def small_encoder():
  net = encoder.Encoder(8, 32, **SMALL)
  return net, drawn(shapes_of(net, jnp.zeros((1, 32, 32, 3))))


def drawn(shapes, seed=0):
  """Random variables, positive because running variances are among them."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda s: rng.random(s.shape, np.float32), shapes)


def test_training_moves_the_running_statistics_and_inference_does_not():
  net, variables = small_encoder()
  x = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3)) * 2 - 1

  @jax.jit
  def run(variables):
    return [net.apply(variables, x, train=t, mutable=['batch_stats']) for t in (True, False)]

  (codes, moved), (other, kept) = run(variables)
  assert codes.shape == (2, 8, 8) and bool(jnp.isfinite(codes).all())
  differs = lambda new: [
    not np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(variables['batch_stats']), strict=True)
  ]
  assert all(differs(moved['batch_stats'])) and not any(differs(kept['batch_stats']))
  assert float(jnp.abs(other - codes).max()) > 1e-4


def test_latents_read_the_levels_of_the_paper():
  assert [encoder.level(i) for i in range(9)] == [0] * 3 + [1] * 4 + [2] * 2
  _, variables = small_encoder()
  counts = [
    sum(name.startswith('conv') for name in variables['params'][f'style{i}']) for i in range(8)
  ]
  assert counts == [1] * 3 + [2] * 4 + [3]


def test_a_fourth_channel_counts_for_nothing_at_the_start():
  net, x = encoder.Encoder(8, 32, 4, **SMALL), jnp.zeros((1, 32, 32, 4))
  first = jax.jit(lambda rng: net.init(rng, x)['params']['body']['input_conv'])
  kernel = first(jax.random.key(0))['kernel']
  assert kernel.shape[2] == 4 and not np.any(kernel[:, :, 3]) and np.all(kernel[:, :, :3])


def test_pictures_that_the_encoder_cannot_take():
  with pytest.raises(ValueError, match='size 96 of the encoder is not 16 times a power of two'):
    shapes_of(encoder.Encoder(14, 96), jnp.zeros((1, 96, 96, 3)))
  with pytest.raises(ValueError, match=r'\(32, 32, 3\) for an encoder of \(64, 64, 3\)'):
    shapes_of(encoder.Encoder(10, 64), jnp.zeros((1, 32, 32, 3)))


TOY = stylegan2_networks.Generator(8, style_dim=8, mlp_layers=2, max_channels=4)
COUNT = 4  # latents of TOY


@functools.cache
def toy_variables():
  return drawn(shapes_of(TOY, jnp.zeros((1, COUNT, 8))))


def reference_state(prefix=''):
  """TOY as the reference keeps it, resampling filters included."""
  variables = toy_variables()
  tree = {
    'params': {'g': variables['params']},
    'stats': {'g': {'buffers': variables['buffers']}},
  }
  entries = published_parts.generator_entries('g', 8, prefix, mlp_layers=2)
  state = mapping.export(tree, entries)
  for key in ('convs.0.conv.blur.kernel', 'to_rgbs.0.upsample.kernel'):
    state[prefix + key] = np.zeros((4, 4), np.float32)
  return state


def test_every_parameter_of_the_networks_is_mapped_once():
  found = published_parts.psp_entries('e', 'g', generator_size=256)
  targets = [e.target for e in found]
  assert len(targets) == len(set(targets)) and len({e.key for e in found}) == len(found)
  nets = {
    'e': shapes_of(encoder.Encoder(14), jnp.zeros((1, 256, 256, 3))),
    'g': shapes_of(stylegan2_networks.Generator(256), jnp.zeros((1, 14, 512))),
  }
  want = set()
  for name, variables in nets.items():
    for path, _ in jax.tree_util.tree_leaves_with_path(variables):
      collection, *rest = (k.key for k in path)
      head = ('params', name) if collection == 'params' else ('stats', name, collection)
      want.add((*head, *rest))
  assert set(targets) == want
  critic = shapes_of(stylegan2_networks.Discriminator(16), jnp.zeros((4, 16, 16, 3)))['params']
  want = {tuple(k.key for k in p) for p, _ in jax.tree_util.tree_leaves_with_path(critic)}
  assert {e.path for e in published_parts.discriminator_entries('d', 16)} == want


def test_the_shapes_in_the_file_are_the_references():
  state = reference_state()
  assert state['conv1.conv.weight'].shape == (1, 4, 4, 3, 3)
  assert state['to_rgb1.bias'].shape == (1, 3, 1, 1) and state['conv1.noise.weight'].shape == (1,)
  assert state['input.input'].shape == (1, 4, 4, 4) and state['noises.noise_1'].shape == (
    1,
    1,
    8,
    8,
  )


@pytest.mark.parametrize('prefix', ['', 'g_ema.', 'state_dict.decoder.'])
def test_generators_are_loaded_out_of_three_kinds_of_file(prefix, tmp_path):
  state = reference_state(prefix)
  if prefix:
    average = np.arange(8, dtype=np.float32)
    state['latent_avg'] = np.tile(average, (COUNT, 1)) if 'decoder' in prefix else average
    state[prefix.split('.')[0][0] + '.other.weight'] = np.zeros(2, np.float32)
  save_file(state, tmp_path / 'file')
  found = published_parts.load_generator(tmp_path / 'file', TOY)
  want = toy_variables()
  jax.tree.map(np.testing.assert_array_equal, found['params'], want['params'])
  got = dict(found['buffers'])
  row = got.pop('latent_avg')
  assert row.shape == (COUNT, 8)
  if prefix:
    np.testing.assert_array_equal(row, np.tile(average, (COUNT, 1)))
  else:  # such files have none: it is estimated
    z = jax.random.normal(jax.random.key(5), (4096, 8))
    mean = TOY.apply(want, z, method='mapping').mean(0)
    np.testing.assert_allclose(row, np.tile(mean, (COUNT, 1)), rtol=0.1)
  for name, value in got.items():
    np.testing.assert_array_equal(value, want['buffers'][name])


def test_a_generator_of_another_size_is_refused(tmp_path):
  save_file(reference_state('g_ema.'), tmp_path / 'file')
  larger = TOY.copy(size=16)
  with pytest.raises(ValueError, match=r'generator of 16 pixels(.|\n)*convs\.2\.conv\.weight'):
    published_parts.load_generator(tmp_path / 'file', larger)
  wider = TOY.copy(max_channels=8)
  with pytest.raises(ValueError, match=r'in the file, \(.*\) in the network'):
    published_parts.load_generator(tmp_path / 'file', wider)


@pytest.mark.parametrize('channels', [3, 4])
def test_the_body_starts_from_a_face_recogniser(channels):
  source = shapes_of(encoder.Encoder(8, 32, 3, **SMALL), jnp.zeros((1, 32, 32, 3)))
  source = {k: drawn({'body': source[k]['body']}) for k in ('params', 'batch_stats')}
  params, stats = published_parts.body_of(source, channels)
  wanted = shapes_of(encoder.Encoder(8, 32, channels, **SMALL), jnp.zeros((1, 32, 32, channels)))
  for got, shapes in (
    (params['body'], wanted['params']),
    (stats['batch_stats']['body'], wanted['batch_stats']),
  ):
    jax.tree.map(lambda a, s: np.testing.assert_equal(a.shape, s.shape), got, shapes['body'])
  kernel = params['body']['input_conv']['kernel']
  np.testing.assert_array_equal(kernel[:, :, :3], source['params']['body']['input_conv']['kernel'])
  assert not np.any(kernel[:, :, 3:])


def test_only_resampling_filters_are_ignored():
  skipped = lambda key: any(re.search(pattern, key) for pattern in published_parts.IGNORE)
  for key in ('convs.0.conv.blur.kernel', 'to_rgbs.0.upsample.kernel', 'convs.1.skip.0.kernel'):
    assert skipped(key) and skipped(f'decoder.{key}')
  entries = published_parts.psp_entries('e', 'g')
  assert not any(skipped(e.key) for e in entries + published_parts.discriminator_entries('d', 64))
