import goldens
import initial
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.systems.ctsdg import networks, published
from jaxinpaint.weights import mapping


def convert(state, entries, ignore=()):
  """Variables of the one network that the entries name."""
  tree = mapping.convert(state, entries, ignore=ignore)
  (network,) = tree['params']
  return {'params': tree['params'][network], **tree['stats'].get(network, {})}


def gradients(function, x, cotangent):
  @jax.jit
  def run(x, cotangent):
    out, pull = jax.vjp(function, *x)
    return out, pull(cotangent)

  return run(x, jnp.asarray(cotangent))


@goldens.cases('ctsdg_pconv_down5', 'ctsdg_pconv_down7', 'ctsdg_pconv_none3')
def test_partial_convolution_with_norm(case):
  data = case.data()
  kind, size = case.name.rsplit('_', 1)[1][:-1], int(case.name[-1])
  layer = networks.PartialConvNorm(
    data['out'].shape[1],
    size,
    stride=2 if kind == 'down' else 1,
    slope=0.0 if kind == 'down' else 0.2,
    norm='bn.weight' in case.state(),
  )
  entries = published.partial_entries('', (), norm=layer.norm)
  variables = convert(case.state(), entries)
  mask = goldens.nhwc(data['mask'])
  run = lambda x: layer.apply(variables, x, mask)[0]
  out, (grad,) = gradients(run, (goldens.nhwc(data['x']),), goldens.nhwc(data['cotangent']))
  new = jax.jit(layer.apply)(variables, goldens.nhwc(data['x']), mask)[1]
  goldens.assert_close(goldens.nchw(out), data['out'])
  goldens.assert_close(goldens.nchw(grad), data['grad_x'])
  want = data['mask_out']
  goldens.assert_close(np.broadcast_to(goldens.nchw(new), want.shape), want, 0)


@goldens.cases('ctsdg_bigff')
def test_fusion(case):
  data = case.data()
  variables = convert(case.state(), published.bigff_entries('', ()))
  run = lambda t, s: networks.BiGFF().apply(variables, t, s)
  x = tuple(goldens.nhwc(data[name]) for name in ('texture', 'structure'))
  out, grads = gradients(run, x, goldens.nhwc(data['cotangent']))
  goldens.assert_close(goldens.nchw(out), data['out'])
  for name, grad in zip(('texture', 'structure'), grads, strict=True):
    goldens.assert_close(goldens.nchw(grad), data[f'grad_{name}'], what=name)


@goldens.cases('ctsdg_cfa')
def test_contextual_feature_aggregation(case):
  data = case.data()
  variables = convert(case.state(), published.cfa_entries('', ()))
  run = lambda x: networks.CFA().apply(variables, x)
  x = goldens.nhwc(data['x'])
  found = jax.jit(run)(x)
  out, (grad,) = gradients(lambda x: run(x)['out'], (x,), goldens.nhwc(data['cotangent']))
  goldens.assert_close(goldens.nchw(found['affinity']), data['ral'])
  goldens.assert_close(goldens.nchw(found['weights']), data['weights'])
  goldens.assert_close(goldens.nchw(out), data['out'])
  goldens.assert_close(goldens.nchw(grad), data['grad_x'])


@goldens.cases('ctsdg_projection_structure', 'ctsdg_projection_texture')
def test_projection(case):
  data, kind = case.data(), case.name.rsplit('_', 1)[1]
  entries = published.projection_entries('', f'{kind}_resolver', ())
  layer = networks.Projection(data['out'].shape[1])
  out = jax.jit(layer.apply)(convert(case.state(), entries), goldens.nhwc(data['x']))
  out = jax.nn.sigmoid(out) if kind == 'structure' else jnp.tanh(out)
  goldens.assert_close(goldens.nchw(out), data['out'])


@goldens.cases('ctsdg_generator')
def test_generator(case):
  data = case.data()
  variables = convert(case.state(), published.generator_entries({}))
  image, mask, edge, gray = (goldens.nhwc(data[n]) for n in ('image', 'mask', 'edge', 'gray'))
  run = jax.jit(networks.Generator().apply)  # as constants, the variables would be compiled, too
  found = run(variables, (image + 1) / 2, 1 - mask, edge, gray)
  sample = lambda x, stride=1: goldens.nchw(x)[:1, ::stride]
  goldens.assert_close(goldens.nchw(2 * found['out'] - 1), data['out'])
  goldens.assert_close(
    goldens.nchw(jax.nn.sigmoid(found['projected_edge'])), data['projected_edge']
  )
  goldens.assert_close(sample(2 * found['projected_image'] - 1), data['projected_image_b0'])
  goldens.assert_close(sample(found['bigff'], 64), data['bigff_b0'])
  goldens.assert_close(sample(found['fusion'], 32), data['fusion1_b0'])


@goldens.cases('ctsdg_discriminator')
def test_discriminator(case):
  data = case.data()
  variables = convert(case.state(), published.discriminator_entries())
  image, gray, edge = (goldens.nhwc(data[n]) for n in ('image', 'gray', 'edge'))
  run = jax.jit(networks.Discriminator().apply)
  real, fake = (run(variables, (image + 1) / 2, gray, *x) for x in ((edge,), ()))
  goldens.assert_close(goldens.nchw(real['logits']), data['logit_real'])
  goldens.assert_close(goldens.nchw(fake['logits']), data['logit_fake'])
  goldens.assert_close(goldens.nchw(jax.nn.sigmoid(fake['edges'])), data['detected_edge'])


def test_a_generator_of_fewer_levels_hides_the_hole_and_names_wrong_sizes():
  generator = networks.Generator(width=4, levels=3)
  rng = np.random.default_rng(0)
  image = rng.random((1, 16, 24, 3), np.float32)
  one = rng.random((1, 16, 24, 1), np.float32)
  mask = np.zeros((1, 16, 24, 1), np.float32)
  mask[:, 4:10, 5:15] = 1
  variables = initial.values(lambda key: generator.init(key, image, mask, one, one))
  run = jax.jit(lambda *x: generator.apply(variables, *x)['out'])
  out = run(image, mask, one, one)
  hide = lambda x: np.where(mask > 0, 7, x)
  np.testing.assert_array_equal(out, run(hide(image), mask, hide(one), hide(one)))
  assert out.shape == image.shape and 0 <= out.min() and out.max() <= 1
  with pytest.raises(ValueError, match='16 x 20 must be multiples of 8'):
    generator.init(jax.random.key(0), image[:, :, :20], mask[:, :, :20], one, one)
