import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import adversarial
from jaxinpaint.systems._shared import coarse_to_fine_files
from jaxinpaint.systems.deepfillv2 import networks, published
from jaxinpaint.weights import mapping


def shapes(size=64, **settings):
  image, plane = jnp.zeros((1, size, size, 3)), jnp.zeros((1, size, size, 1))
  sketch = plane if settings.get('sketch') else None
  generator = networks.Generator(**settings)
  return jax.eval_shape(generator.init, jax.random.key(0), image, plane, sketch)['params']


def critic_shapes(**settings):
  image = jnp.zeros((1, 64, 64, 3))
  return jax.eval_shape(networks.Critic(**settings).init, jax.random.key(0), image, image[..., :1])


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_parameter_counts():
  assert count(shapes()) == 4_052_478
  # One more input channel of a 5 x 5 convolution to 48.
  assert count(shapes(sketch=True)) == 4_052_478 + 25 * 48
  critic = critic_shapes()
  layers = ((4, 64), (64, 128), (128, 256), (256, 256), (256, 256), (256, 256))
  assert count(critic['params']) == sum(25 * i * o + o for i, o in layers)
  assert count(critic['spectral']) == 64 + 128 + 4 * 256  # u alone


def places(tree, network):
  return {
    (network, *(k.key for k in path)) for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  }


def test_every_parameter_is_mapped_once():
  critic = critic_shapes()
  want = places(shapes(), 'generator') | places(critic['params'], 'critic')
  want |= places(critic['spectral'], 'critic')
  for entries in (published.tf_entries, published.port_tf_entries, published.port_entries):
    found = [(e.network, *e.path) for e in entries({})]
    assert len(found) == len(set(found)) and set(found) == want
    assert len({(e.network, e.key) for e in entries({})}) == len(found)


def test_only_optimizer_state_is_ignored():
  skipped = lambda key: any(re.search(p, key) for p in coarse_to_fine_files.TF_IGNORE)
  for key in ('inpaint_net/conv1/kernel/Adam_1', 'beta1_power', 'beta2_power_1', 'global_step'):
    assert skipped(key)
  assert not any(skipped(e.key) for e in published.tf_entries({}))


def tf_state(case):
  """The case's weights as the TensorFlow variables that they were assigned to."""
  names = case.manifest()['tf_names']
  move = {4: lambda v: v.transpose(2, 3, 1, 0), 1: lambda v: v}
  return {names[k]: move[v.ndim](v) for k, v in case.state().items()}


def generator_of(state, entries, ignore=()):
  entries = [e for e in entries({}) if e.network == 'generator']
  return {'params': mapping.convert(state, entries, ignore)['params']['generator']}


def run(variables, data, **settings):
  """The network's own range is that of the golden: [-1, 1] in and out."""
  image = (goldens.nhwc(data['x'])[..., :3] + 1) / 2
  mask = np.broadcast_to(goldens.nhwc(data['mask']), (*image.shape[:3], 1))
  return jax.jit(networks.Generator(**settings).apply)(variables, image, mask)


def check(got, want, what):
  goldens.assert_close(goldens.nchw(got) * 2 - 1, want, what=what)


@goldens.cases('deepfillv2_generator_official_tf')
def test_official_generator(case):
  data = case.data()
  variables = generator_of(tf_state(case), published.tf_entries)
  found = run(variables, data)
  check(found['coarse'], data['x1'], 'coarse')
  check(found['out'], data['x2'], 'out')


def check_attention(found, data):
  for name, want in (('attended_from', 'att_in'), ('attended', 'att_out')):
    n, c = data[want].shape[:2]
    goldens.assert_close(goldens.nchw(found[name])[:n, :c], data[want], what=name)


@goldens.cases('deepfillv2_generator_tf')
def test_the_ports_network_with_tensorflows_layers(case):
  data = case.data()
  variables = generator_of(case.state(), published.port_tf_entries)
  for want, fuse in (('x2', False), ('x2_fuse', True)):
    found = run(variables, data, fuse=fuse, mask_steps=1)
    check(found['coarse'], data['x1'], 'coarse')
    check(found['out'], data[want], want)
    if not fuse:
      check_attention(found, data)


@goldens.cases('deepfillv2_generator')
def test_the_plain_port(case):
  data = case.data()
  ignore = published.FORMATS['pytorch'].ignore
  found = run(generator_of(case.state(), published.port_entries, ignore), data, **published.PORT)
  check(found['coarse'], data['x1'], 'coarse')
  check(found['out'], data['x2'], 'out')
  check_attention(found, data)


@goldens.cases('deepfillv2_discriminator', 'deepfillv2_discriminator_tf')
def test_critics_and_their_loss(case):
  data = case.data()
  entries = [e for e in published.port_entries({}) if e.network == 'critic']
  tree = mapping.convert(case.state(), entries)
  variables = {'params': tree['params']['critic'], **tree['stats']['critic']}
  x = goldens.nhwc(data['x'])
  critic = networks.Critic(padding='same' if case.name.endswith('tf') else 'symmetric')
  scores = jax.jit(critic.apply)(variables, (x[..., :3] + 1) / 2, x[..., 3:])
  goldens.assert_close(goldens.nchw(scores).reshape(len(x), -1), data['y'])
  terms = adversarial.hinge.discriminator(*jnp.split(scores, 2))
  goldens.assert_close([sum(terms) / 2], data['d_hinge'])
  goldens.assert_close([adversarial.hinge.generator(scores[len(x) // 2 :])], data['g_hinge'])


def test_wrong_arguments_are_named():
  image, plane = jnp.zeros((1, 16, 36, 3)), jnp.zeros((1, 16, 36, 1))
  for settings, arguments, words in (
    (dict(), (image, plane), 'width 36 must be a multiple of 8'),
    (dict(), (image[:, :, :16], plane[:, :, :16], plane[:, :, :16]), 'takes no sketch'),
    (dict(sketch=True), (image[:, :, :16], plane[:, :, :16]), 'a sketch, which is missing'),
    (dict(padding='valid'), (image[:, :, :16], plane[:, :, :16]), "padding 'valid'"),
  ):
    with pytest.raises(ValueError, match=words):
      init = networks.Generator(width=4, **settings).init
      jax.eval_shape(init, jax.random.key(0), *arguments)


def test_bgr_is_inside_only():
  image, mask = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3)), jnp.zeros((1, 16, 16, 1))
  rgb, bgr = (networks.Critic(width=2, channel_order=order) for order in ('rgb', 'bgr'))
  variables = jax.tree.map(
    lambda x: 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), critic_shapes(width=2)
  )
  want = jax.jit(rgb.apply)(variables, image[..., ::-1], mask)
  got = jax.jit(bgr.apply)(variables, image, mask)
  np.testing.assert_array_equal(got, want)
  assert got.shape == (1, 1, 1, 8)
