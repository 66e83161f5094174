import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.layers import edge_generators
from jaxinpaint.systems._shared import edge_guided_files
from jaxinpaint.systems.edgeconnect import networks
from jaxinpaint.weights import mapping


def variables(state, network):
  entries = [e for e in edge_guided_files.entries({}) if e.network == network]
  tree = mapping.convert(state, entries, edge_guided_files.IGNORE)
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


def assert_features(found, data):
  for ours, theirs in (('encoded', 'enc_b0'), ('middle', 'mid_b0')):
    want = data[theirs]  # the first sample, every n-th channel
    got = goldens.nchw(found[ours])[: len(want)]
    goldens.assert_close(got[:, :: got.shape[1] // want.shape[1]], want, what=ours)


@goldens.cases('edgeconnect_edge_generator')
def test_edge_generator(case):
  data = case.data()
  gray, edge, mask = (goldens.nhwc(data[k]) for k in ('gray', 'edge', 'mask'))
  own = variables(case.state(), 'edge_generator')
  found = jax.jit(networks.EdgeGenerator().apply)(own, gray, edge, mask)
  assert_features(found, data)
  goldens.assert_close(goldens.nchw(found['logit']), data['logit'], what='logit')
  goldens.assert_close(goldens.nchw(found['edges']), data['out'], what='edges')


@goldens.cases('edgeconnect_inpaint_generator')
def test_inpaint_generator(case):
  data = case.data()
  image, edge, mask = (goldens.nhwc(data[k]) for k in ('image', 'edge', 'mask'))
  own = variables(case.state(), 'generator')
  found = jax.jit(networks.InpaintGenerator().apply)(own, image, edge, mask)
  assert_features(found, data)
  goldens.assert_close(goldens.nchw(found['logit']), data['logit'], what='logit')
  goldens.assert_close(goldens.nchw(found['out']), data['out'], what='out')


def test_gray_is_that_of_the_edge_detector():
  from skimage import color

  image = np.random.default_rng(0).random((2, 8, 9, 3), np.float32)
  goldens.assert_close(edge_generators.gray(image)[..., 0], color.rgb2gray(image), 1e-6)


def shapes(**model):
  config = systems.default_config('edgeconnect')
  config.model.update(model)
  batch = {
    k: jax.ShapeDtypeStruct((1, 64, 64, c), jnp.float32) for k, c in (('image', 3), ('mask', 1))
  }
  return jax.eval_shape(systems.make_recipe(config).init, jax.random.key(0), batch)


def test_parameter_counts_are_the_published_ones():
  count = lambda tree: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
  found = {name: count(tree) for name, tree in shapes()[0].items()}
  assert found == {
    'edge_generator': 10_761_089,
    'generator': 10_774_595,
    'edge_discriminator': 2_763_776 - 1024,
    'discriminator': 2_763_776,
  }


@pytest.mark.parametrize('model', [{}, {'use_spectral_norm': False, 'blocks': 2}])
def test_every_parameter_and_vector_is_mapped_once(model):
  params, stats = shapes(**model)
  path = lambda p: tuple(k.key for k in p)
  leaves = jax.tree_util.tree_leaves_with_path
  want = {('params', *path(p)) for p, _ in leaves(params)}
  want |= {('stats', *path(p)) for p, _ in leaves(stats)}
  found = [e.target for e in edge_guided_files.entries(model)]
  assert len(found) == len(set(found)) and set(found) == want
