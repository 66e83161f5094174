"""Losses against those that the published code computed, gradients included."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.features import vgg
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.losses import adversarial, perceptual, reconstruction
from jaxinpaint.weights import mapping

PERCEPTUAL = ('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1')
STYLE = ('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2')
_INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
_NAMES = [f'conv{b}_{i}' for b, n in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, n + 1)]


def close(got, want, atol, what):
  goldens.assert_close(got, np.asarray(want).reshape(np.shape(got)), atol, what)


def relative(got, want, what, rtol=1e-4):
  """For values far from 1: the largest error against the largest value."""
  goldens.assert_close(got, want, rtol * max(1.0, float(np.abs(want).max())), what)


def vgg19_entries():
  found = ()
  for index, name in zip(_INDICES, _NAMES, strict=True):
    found += mapping.conv(f'features.{index}', 'vgg', (name,))
  return found


def discriminator_entries(prefix):
  found = ()
  for i in range(1, 6):
    found += mapping.sn_conv(f'{prefix}conv{i}.0', prefix, (f'conv{i}',), bias=False)
  return found


@goldens.cases('edgeconnect_losses')
def test_edgeconnect(case):
  entries = vgg19_entries()
  for prefix in ('dis_image.', 'dis_edge.'):
    entries += discriminator_entries(prefix)
  tree = mapping.convert(case.state(), entries)
  params, stats, data = tree['params'], tree['stats'], case.data()
  image, output, mask, gray, edge, edge_output = (
    jnp.asarray(goldens.nhwc(data[k]))
    for k in ('image', 'output', 'mask', 'gray', 'edge', 'edge_output')
  )

  def judge(prefix, x, params):
    variables = {'params': params[prefix], **stats[prefix]}
    return PatchDiscriminator().apply(variables, x)

  def features(x, layers, params):
    return vgg.apply(params['vgg'], x, layers, depth=19, normalize=False)

  game = adversarial.non_saturating

  def inpaint(output, params):
    terms = {
      'inpaint_adv': 0.1 * game.generator(judge('dis_image.', output, params)[0]),
      'inpaint_l1': reconstruction.l1(output, image, mask, over_mask_mean=True),
      'inpaint_perceptual': 0.1
      * perceptual.perceptual(
        features(output, PERCEPTUAL, params), features(image, PERCEPTUAL, params), PERCEPTUAL
      ),
      'inpaint_style': 250.0
      * perceptual.style(
        features(output * mask, STYLE, params), features(image * mask, STYLE, params), STYLE
      ),
    }
    return sum(terms.values()), terms

  (total, terms), gradient = jax.jit(jax.value_and_grad(inpaint, has_aux=True))(output, params)
  for name, value in terms.items():
    relative(value, data[name], name)
  relative(total, data['inpaint_total'], 'total')
  relative(goldens.nchw(gradient), data['grad_output'], 'grad_output')

  real, fake = (judge('dis_image.', x, params)[0] for x in (image, output))
  close(goldens.nchw(jax.nn.sigmoid(real)), data['dis_real'], 1e-4, 'D(real)')
  close(game.discriminator(real, fake), data['inpaint_dis_loss'], 1e-4, 'D loss')

  def edges(edge_output, params):
    fake, fake_features = judge('dis_edge.', jnp.concatenate([gray, edge_output], -1), params)
    _, real_features = judge('dis_edge.', jnp.concatenate([gray, edge], -1), params)
    matching = 10 * adversarial.feature_matching(fake_features, real_features)
    terms = {'edge_adv': game.generator(fake), 'edge_fm': matching}
    return sum(terms.values()), terms

  (_, terms), gradient = jax.jit(jax.value_and_grad(edges, has_aux=True))(edge_output, params)
  for name, value in terms.items():
    relative(value, data[name], name)
  relative(goldens.nchw(gradient), data['grad_edge_output'], 'grad_edge_output')
  real, _ = judge('dis_edge.', jnp.concatenate([gray, edge], -1), params)
  fake, _ = judge('dis_edge.', jnp.concatenate([gray, edge_output], -1), params)
  close(game.discriminator(real, fake), data['edge_dis_loss'], 1e-4, 'edge D loss')

  # The stored score maps stand for both roles; least squares and hinge take them raw.
  scores = jnp.asarray(data['scores'])
  for kind, name in (('non_saturating', 'nsgan'), ('least_squares', 'lsgan'), ('hinge', 'hinge')):
    game = adversarial.kind(kind)
    real_key, fake_key = ('_real', '_fake') if name == 'nsgan' else ('_dis_real', '_dis_fake')
    close(game.real(scores), data[name + real_key], 1e-4, name)
    close(game.fake(scores), data[name + fake_key], 1e-4, name)
    if name != 'nsgan':
      close(game.generator(scores), data[name + '_gen'], 1e-4, name)


def aotgan_discriminator(params, stats, x):
  """AOT-GAN's: spectral norm on the first four layers, a plain fifth with a bias."""
  from jaxinpaint.layers.conv import Conv
  from jaxinpaint.layers.spectral_norm import SNConv

  for i, stride in enumerate((2, 2, 2, 1)):
    layer = SNConv(64 * 2**i, 4, stride=stride, padding=1, use_bias=False)
    variables = {'params': params[f'conv{i}'], 'spectral': stats['spectral'][f'conv{i}']}
    x = jax.nn.leaky_relu(layer.apply(variables, x), 0.2)
  return Conv(1, 4, padding=1).apply({'params': params['conv4']}, x)


@goldens.cases('aotgan_losses')
def test_aotgan(case):
  entries = vgg19_entries()
  for i in range(4):
    entries += mapping.sn_conv(f'dis.conv.{2 * i}', 'dis', (f'conv{i}',), bias=False)
  entries += mapping.conv('dis.conv.8', 'dis', ('conv4',))
  tree = mapping.convert(case.state(), entries)
  params, stats, data = tree['params'], tree['stats'], case.data()
  image, pred, mask = (jnp.asarray(goldens.nhwc(data[k])) for k in ('image', 'pred', 'mask'))
  judge = lambda x, params: aotgan_discriminator(params['dis'], stats['dis'], x)
  layers = (*PERCEPTUAL, *STYLE)
  features = lambda x, params: vgg.apply(params['vgg'], (x + 1) / 2, layers, depth=19)

  def generator(pred, params):
    p, t = features(pred, params), features(image, params)
    comp = (1 - mask) * image + mask * pred
    terms = {
      'l1': reconstruction.l1(pred, image),
      'style': 250 * perceptual.style(p, t, STYLE),
      'perceptual': 0.1 * perceptual.perceptual(p, t, PERCEPTUAL),
      'advg': 0.01 * adversarial.smgan_generator(judge(comp, params), mask, 'released'),
    }
    return sum(terms.values()), terms

  (total, terms), gradient = jax.jit(jax.value_and_grad(generator, has_aux=True))(pred, params)
  for name, value in terms.items():
    relative(value, data[name], name)
  relative(total, data['total'], 'total')
  relative(goldens.nchw(gradient), data['grad_pred'], 'grad_pred')

  comp = (1 - mask) * image + mask * pred
  real, fake = judge(image, params), judge(comp, params)
  close(goldens.nchw(fake), data['d_fake'], 1e-4, 'd_fake')
  close(goldens.nchw(real), data['d_real'], 1e-4, 'd_real')
  discriminator = adversarial.smgan_discriminator(real, fake, mask, 'released')
  # advd carries the adversarial weight as the other stored terms do, or not: the stored scores say.
  smgan = adversarial.smgan_discriminator(
    *(jnp.asarray(goldens.nhwc(data[k])) for k in ('scores_real', 'scores_fake')), mask, 'released'
  )
  close(smgan, data['smgan_dis_scores'], 1e-4, 'smgan_dis_scores')
  scores = jnp.asarray(goldens.nhwc(data['scores_fake']))
  close(
    adversarial.smgan_generator(scores, mask, 'released'), data['smgan_gen_scores'], 1e-4, 'gen'
  )
  close(discriminator, data['advd'], 1e-4, 'advd')
  close(adversarial.smgan_generator(fake, mask, 'released'), data['smgan_gen'], 1e-4, 'smgan_gen')
  close(goldens.nchw(adversarial.soft_mask(mask)), data['soft_mask'], 1e-4, 'soft_mask')
  close(adversarial.gaussian_kernel(71, 10.0), data['kernel1d'], 1e-6, 'kernel')
  logistic = adversarial.logistic
  close(logistic.discriminator(real, fake), data['nsgan_dis'], 1e-4, 'nsgan_dis')
  close(logistic.generator(fake), data['nsgan_gen'], 1e-4, 'nsgan_gen')


@goldens.cases('wgan_gp')
def test_wgan_gp(case):
  state, data = {k: jnp.asarray(v) for k, v in case.state().items()}, case.data()

  def critic(params, x):
    x = jnp.moveaxis(x, -1, 1)
    for name in ('c1', 'c2'):
      x = jax.lax.conv_general_dilated(x, params[f'{name}.weight'], (2, 2), [(2, 2)] * 2)
      x = jax.nn.leaky_relu(x + params[f'{name}.bias'][:, None, None], 0.2)
    return x.reshape(x.shape[0], -1) @ params['fc.weight'].T + params['fc.bias']

  real, fake, mask = (jnp.asarray(goldens.nhwc(data[k])) for k in ('real', 'fake', 'mask'))
  for name, region in (('plain', None), ('masked', mask)):

    def penalty(params, region=region):
      judge = lambda x: critic(params, x)
      return adversarial.gradient_penalty(judge, real, fake, data['alpha'][:, 0], region)

    (value, slopes), gradient = jax.value_and_grad(penalty, has_aux=True)(state)
    close(value, data[f'penalty_{name}'], 1e-4, name)
    goldens.assert_close(slopes, data[f'slope_{name}'], 1e-4, name)
    for key, want in gradient.items():
      goldens.assert_close(want, data[f'grad_{name}/{key}'], 1e-4, key)
  d_real, d_fake = critic(state, real), critic(state, fake)
  goldens.assert_close(d_real, data['d_real'])
  # The stored d_loss and g_loss are the plain Wasserstein terms.
  close(adversarial.wasserstein.discriminator(d_real, d_fake), data['d_loss'], 1e-4, 'd_loss')
  close(adversarial.wasserstein.generator(d_fake), data['g_loss'], 1e-4, 'g_loss')


@goldens.cases('spatial_discount')
def test_spatial_discount(case):
  data = case.data()
  height, width = data['mask'].shape
  got = reconstruction.spatial_discount_mask(height, width, 0.9)[..., 0]
  goldens.assert_close(got, data['mask'], 1e-6)
