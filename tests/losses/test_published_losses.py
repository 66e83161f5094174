"""Whole losses of published systems, values and gradients, built from the library's parts."""

import goldens
import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import save_file

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.layers.conv import conv2d
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.layers.spectral_norm import SNConv
from jaxinpaint.losses import adversarial, perceptual, reconstruction
from jaxinpaint.weights import mapping

PERCEPTUAL = ('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1')
STYLE = ('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2')


@pytest.fixture(scope='module')
def vgg19(tmp_path_factory):
  """(state) -> VGG19's parameters; the two cases share their weights, so they are read once."""
  path = tmp_path_factory.mktemp('vgg') / 'vgg19.safetensors'
  found = {}

  def load(state):
    if not found:
      save_file({k: v for k, v in state.items() if k.startswith('features.')}, path)
      found.update(vgg.load(19, path))
    return found

  return load


def assert_gradients_close(got, want):
  """Root mean square error below 1e-4 and every entry within 1e-2, in units of the largest entry.

  A mean over thousands of elements has gradients far below the usual tolerance. Rounding puts a few
  features on the other side of a kink of ReLU or of L1, which moves single entries.
  """
  scale = abs(want).max()
  got = goldens.nchw(got) / scale
  goldens.assert_close(got, want / scale, 1e-2, what='gradient')
  error = ((got - want / scale) ** 2).mean() ** 0.5
  assert error <= 1e-4, f'gradient: root mean square error {error:.3g} of the largest'


def patch_discriminator(state, prefix):
  """Its variables, and (variables, images) -> (logits, features), in eval mode."""
  entries = ()
  for i in range(1, 6):
    entries += mapping.sn_conv(f'{prefix}conv{i}.0', 'net', (f'conv{i}',), bias=False)
  own = {k: v for k, v in state.items() if k.startswith(prefix)}
  tree = mapping.convert(own, entries)
  variables = {'params': tree['params']['net'], **tree['stats']['net']}
  return variables, jax.jit(PatchDiscriminator().apply)


@goldens.cases('edgeconnect_losses')
def test_edgeconnect_inpainting_stage(case, vgg19):
  data, state = case.data(), case.state()
  image, output, mask = (jnp.asarray(goldens.nhwc(data[k])) for k in ('image', 'output', 'mask'))
  params = vgg19(state)
  variables, discriminator = patch_discriminator(state, 'dis_image.')

  def loss(output, image, mask, params, variables):  # as constants, weights would be compiled, too
    features = lambda x, layers: vgg.apply(params, x, layers, depth=19, normalize=False)
    logits, _ = discriminator(variables, output)
    styled = [features(x * mask, STYLE) for x in (output, image)]
    content = [features(x, PERCEPTUAL) for x in (output, image)]
    terms = {
      'inpaint_l1': reconstruction.l1_over_mask_mean(output, image, mask),
      'inpaint_adv': 0.1 * adversarial.non_saturating.generator(logits),
      'inpaint_perceptual': 0.1 * perceptual.perceptual(*content),
      'inpaint_style': 250 * perceptual.style(*styled),
    }
    return sum(terms.values()), (terms, logits)

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, (terms, fake)), gradient = run(output, image, mask, params, variables)
  goldens.assert_close(total, data['inpaint_total'], what='total')
  for name, value in terms.items():
    goldens.assert_close(value, data[name], what=name)
  assert_gradients_close(gradient, data['grad_output'])

  real, _ = discriminator(variables, image)
  score = lambda logits: goldens.nchw(jax.nn.sigmoid(logits))
  goldens.assert_close(score(real), data['dis_real'], what='scores of real')
  goldens.assert_close(score(fake), data['dis_fake'], what='scores of fake')
  value = sum(adversarial.non_saturating.discriminator(real, fake)) / 2
  goldens.assert_close(value, data['inpaint_dis_loss'], what='discriminator')


@goldens.cases('edgeconnect_losses')
def test_edgeconnect_edge_stage(case):
  data, state = case.data(), case.state()
  gray, edge, output = (jnp.asarray(goldens.nhwc(data[k])) for k in ('gray', 'edge', 'edge_output'))
  variables, discriminator = patch_discriminator(state, 'dis_edge.')

  def loss(output, variables):
    see = lambda edge: discriminator(variables, jnp.concatenate([gray, edge], -1))
    (fake, fake_features), (real, real_features) = see(output), see(edge)
    terms = {
      'edge_adv': adversarial.non_saturating.generator(fake),
      'edge_fm': 10 * adversarial.feature_matching(fake_features, real_features),
    }
    return sum(terms.values()), (terms, real, fake)

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, (terms, real, fake)), gradient = run(output, variables)
  for name, value in terms.items():
    goldens.assert_close(value, data[name], what=name)
  value = sum(adversarial.non_saturating.discriminator(real, fake)) / 2
  goldens.assert_close(value, data['edge_dis_loss'], what='discriminator')
  assert_gradients_close(gradient, data['grad_edge_output'])


@goldens.cases('edgeconnect_losses')
def test_edgeconnect_kinds_of_gan(case):
  data = case.data()
  scores = jnp.asarray(data['scores'])
  for kind, name in (('least_squares', 'lsgan'), ('hinge', 'hinge')):
    loss = adversarial.KINDS[kind]
    real, fake = loss.discriminator(scores, scores)
    goldens.assert_close(real, data[f'{name}_dis_real'], what=f'{name} real')
    goldens.assert_close(fake, data[f'{name}_dis_fake'], what=f'{name} fake')
    goldens.assert_close(loss.generator(scores), data[f'{name}_gen'], what=f'{name} generator')
  real, fake = adversarial.non_saturating.discriminator(scores, scores)
  goldens.assert_close(real, data['nsgan_real'], what='nsgan real')
  goldens.assert_close(fake, data['nsgan_fake'], what='nsgan fake')


def aot_discriminator(state):
  """Its variables, and (variables, images) -> logits.

  Four spectrally normalised convolutions and a plain one with a bias.
  """
  entries, layers = (), ((0, 64, 2), (2, 128, 2), (4, 256, 2), (6, 512, 1))
  for key, _, _ in layers:
    entries += mapping.sn_conv(f'dis.conv.{key}', 'net', (f'conv{key}',), bias=False)
  entries += mapping.conv('dis.conv.8', 'net', ('conv8',))
  own = {k: v for k, v in state.items() if k.startswith('dis.')}
  tree = mapping.convert(own, entries)
  variables = {'params': tree['params']['net'], **tree['stats']['net']}

  def apply(variables, x):
    params, spectral = variables['params'], variables['spectral']
    for key, width, stride in layers:
      layer = SNConv(width, 4, stride=stride, padding=1, use_bias=False)
      own = {'params': params[f'conv{key}'], 'spectral': spectral[f'conv{key}']}
      x = jax.nn.leaky_relu(layer.apply(own, x), 0.2)
    return conv2d(x, params['conv8']['kernel'], padding=1) + params['conv8']['bias']

  return variables, apply


@goldens.cases('aotgan_losses')
def test_aotgan(case, vgg19):
  data, state = case.data(), case.state()
  image, pred, mask = (jnp.asarray(goldens.nhwc(data[k])) for k in ('image', 'pred', 'mask'))
  params = vgg19(state)
  variables, discriminator = aot_discriminator(state)

  def loss(pred, image, mask, params, variables):
    layers = PERCEPTUAL + STYLE
    found = [vgg.apply(params, (x + 1) / 2, layers, depth=19) for x in (pred, image)]
    pick = lambda names: ({n: f[n] for n in names} for f in found)
    fake = discriminator(variables, arrays.compose(pred, image, mask))
    terms = {
      'l1': reconstruction.l1(pred, image),
      'style': 250 * perceptual.style(*pick(STYLE)),
      'perceptual': 0.1 * perceptual.perceptual(*pick(PERCEPTUAL)),
      'advg': 0.01 * adversarial.sm_gan_generator(fake, mask, variant='released'),
    }
    return sum(terms.values()), (terms, fake)

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, (terms, fake)), gradient = run(pred, image, mask, params, variables)
  goldens.assert_close(total, data['total'], what='total')
  for name, value in terms.items():
    goldens.assert_close(value, data[name], what=name)
  assert_gradients_close(gradient, data['grad_pred'])

  real = discriminator(variables, image)
  goldens.assert_close(goldens.nchw(fake), data['d_fake'], what='logits of fake')
  goldens.assert_close(goldens.nchw(real), data['d_real'], what='logits of real')
  goldens.assert_close(goldens.nchw(adversarial.soft_mask(mask)), data['soft_mask'], what='mask')
  released = dict(variant='released')
  value = sum(adversarial.sm_gan_discriminator(real, fake, mask, **released))
  goldens.assert_close(value, data['advd'], what='discriminator')
  value = adversarial.sm_gan_generator(fake, mask, **released)
  goldens.assert_close(value, data['smgan_gen'], what='generator')
  value = sum(adversarial.non_saturating.discriminator(real, fake))
  goldens.assert_close(value, data['nsgan_dis'], what='nsgan discriminator')
  value = adversarial.non_saturating.generator(fake)
  goldens.assert_close(value, data['nsgan_gen'], what='nsgan generator')

  scores = {k: jnp.asarray(goldens.nhwc(data[f'scores_{k}'])) for k in ('real', 'fake')}
  value = sum(adversarial.sm_gan_discriminator(scores['real'], scores['fake'], mask, **released))
  goldens.assert_close(value, data['smgan_dis_scores'], what='discriminator of scores')
  value = adversarial.sm_gan_generator(scores['fake'], mask, **released)
  goldens.assert_close(value, data['smgan_gen_scores'], what='generator of scores')
