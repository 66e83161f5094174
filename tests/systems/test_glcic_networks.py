"""The networks of GL, both released variants, against their code's own outputs."""

import functools
import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.systems.glcic import networks, published
from jaxinpaint.weights import mapping


def convert(case, entries, ignore=()):
  return mapping.convert(case.state(), entries, ignore)


def variables(tree, network):
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


def inner(state, *path):
  """The output of the submodule at `path`, as flax captured it."""
  return functools.reduce(lambda tree, name: tree[name], path, state['intermediates'])['__call__'][
    0
  ]


def hole_color(image, mask):
  hole = image[np.broadcast_to(mask, image.shape) == 1].reshape(-1, 3)
  assert (hole == hole[0]).all()
  return tuple(float(v) for v in hole[0])


@goldens.cases('glcic_generator')
def test_generator(case):
  data = case.data()
  image, mask = goldens.nhwc(data['image']), goldens.nhwc(data['mask'])
  tree = convert(case, published.generator_entries())
  generator = networks.Generator(mpv=hole_color(image, mask))
  apply = jax.jit(
    functools.partial(generator.apply, capture_intermediates=True, mutable=['intermediates'])
  )
  found, state = apply(variables(tree, 'generator'), image, mask)
  for name in ('bn6', 'bn10', 'bn13'):
    got = goldens.nchw(inner(state, name))[:, ::16]
    goldens.assert_close(got, data[name], what=name)
  goldens.assert_close(goldens.nchw(found['out']), data['out'], what='out')


@goldens.cases('glcic_discriminator', 'glcic_discriminator_places2')
def test_discriminator(case):
  data = case.data()
  layers = 6 if 'places2' in case.name else 5
  tree = convert(case, published.discriminator_entries(layers))
  discriminator = networks.Discriminator(global_layers=layers)
  pair = [goldens.nhwc(data[f'image_{name}']) for name in ('local', 'global')]
  found = jax.jit(discriminator.apply)(variables(tree, 'discriminator'), *pair)
  goldens.assert_close(found['local'], data['feature_local'], what='local feature')
  goldens.assert_close(found['whole'], data['feature_global'], what='global feature')
  goldens.assert_close(found['fake'], data['logit'], what='logit')
  goldens.assert_close(jax.nn.sigmoid(found['real']), data['out'], what='score')


@goldens.cases('glcic_tf_generator')
def test_tf_generator(case):
  data = case.data()
  tree = convert(case, published.tf_generator_entries(), published.TF_IGNORE)
  image = (data['image'] + 1) / 2
  apply = jax.jit(
    functools.partial(
      networks.TFGenerator().apply,
      train=True,
      capture_intermediates=True,
      mutable=['intermediates'],
    )
  )
  found, state = apply(variables(tree, 'generator'), image, data['mask'])
  conv5 = jax.nn.relu(inner(state, 'conv5_bn'))[..., ::16]
  goldens.assert_close(conv5, data['conv5_relu'], what='conv5')
  goldens.assert_close(inner(state, 'dilated4')[..., ::16], data['dilate4'], what='dilated4')
  goldens.assert_close(found['out'] * 2 - 1, data['out'], what='out')


@goldens.cases('glcic_tf_discriminator')
def test_tf_discriminator(case):
  data = case.data()
  tree = convert(case, published.tf_discriminator_entries())
  discriminator = networks.TFDiscriminator(separate_heads=True)
  pair = [(data[f'image_{name}'] + 1) / 2 for name in ('local', 'global')]
  apply = jax.jit(functools.partial(discriminator.apply, train=True))
  found = apply(variables(tree, 'discriminator'), *pair)
  goldens.assert_close(found['local'], data['feature_local'], what='local feature')
  goldens.assert_close(found['whole'], data['feature_global'], what='global feature')
  goldens.assert_close(found['fake'], data['logit_fake_head'], what='fake head')
  goldens.assert_close(found['real'], data['logit_real_head'], what='real head')
