import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import adversarial
from jaxinpaint.weights import layouts, mapping

REAL, FAKE = jnp.array([2.0, 0.5, -1.0]), jnp.array([-2.0, 0.5, 1.0])


def test_every_kind_by_hand():
  score = lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))
  r, f = score(REAL), score(FAKE)
  by_hand = {  # real term, fake term, generator's
    'hinge': ((0 + 0.5 + 2) / 3, (0 + 1.5 + 2) / 3, 0.5 / 3),
    'least_squares': ((1 + 0.25 + 4) / 3, (4 + 0.25 + 1) / 3, (9 + 0.25 + 0) / 3),
    'wasserstein': (-1.5 / 3, -0.5 / 3, 0.5 / 3),
    'non_saturating': (-np.log(r).mean(), -np.log(1 - f).mean(), -np.log(f).mean()),
    'least_squares_on_sigmoid': tuple(np.square(x).mean() for x in (r - 1, f, f - 1)),
  }
  assert set(by_hand) == set(adversarial.KINDS)
  for name, want in by_hand.items():
    kind = adversarial.KINDS[name]
    got = (*kind.discriminator(REAL, FAKE), kind.generator(FAKE))
    np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize('name', adversarial.KINDS)
def test_kinds_promote_bfloat16_and_survive_large_logits(name):
  kind = adversarial.KINDS[name]
  logits = jnp.array([500.0, -500.0, 3.0], jnp.bfloat16)
  values = (*kind.discriminator(logits, logits), kind.generator(logits))
  assert all(v.dtype == jnp.float32 and jnp.isfinite(v) for v in values)
  gradient = jax.grad(lambda x: sum(kind.discriminator(x, x)) + kind.generator(x))(logits)
  assert jnp.isfinite(gradient).all()


@goldens.cases('sn_patchgan_hinge')
def test_hinge_is_sn_patchgans_with_both_terms_halved(case):
  data = case.data()

  def loss(pos, neg):
    return sum(adversarial.hinge.discriminator(pos, neg)) / 2

  value, (by_pos, by_neg) = jax.value_and_grad(loss, (0, 1))(data['pos'], data['neg'])
  goldens.assert_close(value, data['d_loss'].squeeze(), 1e-6)
  goldens.assert_close(by_pos, data['d_grad_pos'], 1e-7)
  goldens.assert_close(by_neg, data['d_grad_neg'], 1e-7)
  goldens.assert_close(adversarial.hinge.generator(data['neg']), data['g_loss'].squeeze(), 1e-6)


def critic(params, x):
  """Two 5x5 convolutions of stride 2 with LeakyReLU, flattened as NCHW, one linear output."""
  for name in ('c1', 'c2'):
    x = jax.lax.conv_general_dilated(
      x,
      params[name]['kernel'],
      (2, 2),
      [(2, 2), (2, 2)],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = jax.nn.leaky_relu(x + params[name]['bias'], 0.2)
  x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)
  return x @ params['fc']['kernel'] + params['fc']['bias']


@goldens.cases('wgan_gp')
@pytest.mark.parametrize('kind', ('plain', 'masked'))
def test_gradient_penalty_and_its_gradient(case, kind):
  data = case.data()
  entries = (
    *mapping.conv('c1', 'critic', ('c1',)),
    *mapping.conv('c2', 'critic', ('c2',)),
    *mapping.dense('fc', 'critic', ('fc',)),
  )
  params = mapping.convert(case.state(), entries)['params']['critic']
  real, fake, mask = (jnp.asarray(goldens.nhwc(data[k])) for k in ('real', 'fake', 'mask'))
  mask = mask if kind == 'masked' else None

  @jax.jit
  def run(params):
    evaluate = lambda params: adversarial.gradient_penalty(
      lambda x: critic(params, x), real, fake, alpha=data['alpha'], mask=mask
    )
    return jax.value_and_grad(evaluate, has_aux=True)(params)

  (penalty, slopes), gradient = run(params)
  goldens.assert_close(penalty, data[f'penalty_{kind}'].squeeze(), what='penalty')
  goldens.assert_close(slopes, data[f'slope_{kind}'], what='slopes')
  for entry in entries:
    got = np.asarray(gradient[entry.path[0]][entry.path[1]])
    got = layouts.to_theirs(entry.layout, got)
    goldens.assert_close(got, data[f'grad_{kind}/{entry.key}'], what=entry.key)

  d_real, d_fake = critic(params, real), critic(params, fake)
  goldens.assert_close(d_real, data['d_real'], what='critic of real')
  terms = adversarial.wasserstein.discriminator(d_real, d_fake)
  goldens.assert_close(sum(terms), data['d_loss'].squeeze(), what='critic loss')
  generator = adversarial.wasserstein.generator(d_fake)
  goldens.assert_close(generator, data['g_loss'].squeeze(), what='generator loss')


def test_gradient_penalty_of_a_linear_critic_by_hand():
  slope = lambda w: lambda x: (x * w).sum((1, 2, 3))
  x = jnp.ones((2, 2, 2, 1))
  mask = jnp.zeros((2, 2, 2, 1)).at[:, 0, 0].set(1.0)
  rng = jax.random.key(0)
  penalty, slopes = adversarial.gradient_penalty(slope(3.0), x, 2 * x, rng)
  np.testing.assert_allclose(slopes, [6.0, 6.0])  # sqrt(4 * 9)
  assert penalty == 25
  penalty, slopes = adversarial.gradient_penalty(slope(3.0), x, 2 * x, rng, mask=mask)
  np.testing.assert_allclose(slopes, [3.0, 3.0])
  assert penalty == 4


def test_gradient_penalty_interpolates_each_sample_by_its_own_alpha():
  square = lambda x: (x**2).sum((1, 2, 3)) / 2  # gradient = x, so slopes show where it was taken
  real, fake = jnp.zeros((2, 1, 1, 1)), jnp.ones((2, 1, 1, 1))
  alpha = jnp.array([0.25, 0.75])
  _, slopes = adversarial.gradient_penalty(square, real, fake, alpha=alpha)
  np.testing.assert_allclose(slopes, alpha)
  _, drawn = adversarial.gradient_penalty(square, real, fake, jax.random.key(1))
  assert drawn[0] != drawn[1] and ((drawn >= 0) & (drawn < 1)).all()
  for both in (dict(), dict(rng=jax.random.key(1), alpha=alpha)):
    with pytest.raises(ValueError, match='give one of them'):
      adversarial.gradient_penalty(square, real, fake, **both)


def test_gradient_penalty_at_zero_slope_is_finite_and_so_is_its_gradient():
  x = jnp.ones((2, 4, 4, 3))

  def penalty(w, mask=None):
    net = lambda x: (w * x).sum((1, 2, 3))
    return adversarial.gradient_penalty(net, x, x, jax.random.key(0), mask=mask)[0]

  value, gradient = jax.value_and_grad(penalty)(jnp.float32(0.0))
  assert value == 1 and gradient == 0
  # No hole: every slope is zero although the critic's gradient is not.
  value, gradient = jax.value_and_grad(penalty)(jnp.float32(2.0), jnp.zeros((2, 4, 4, 1)))
  assert value == 0 and gradient == 0


def test_gradient_penalty_is_float32_for_bfloat16_images():
  net = lambda x: (x**2).sum((1, 2, 3))
  x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3)).astype(jnp.bfloat16)
  penalty, slopes = adversarial.gradient_penalty(net, x, x, jax.random.key(1))
  assert penalty.dtype == slopes.dtype == jnp.float32
  exact = 2 * np.sqrt((np.asarray(x, np.float64) ** 2).sum((1, 2, 3)))
  np.testing.assert_allclose(slopes, exact, rtol=1e-6)


def test_r1_by_hand():
  net = lambda x: (jnp.array([1.0, 3.0])[:, None, None, None] * x).sum((1, 2, 3))
  x = jnp.ones((2, 2, 2, 1))
  assert adversarial.r1_penalty(net, x) == (4 * 1 + 4 * 9) / 2


def test_feature_matching_sums_over_layers_and_spares_the_real_ones():
  fake = [jnp.array([[1.0, 2.0]]), jnp.array([[3.0]])]
  real = [jnp.array([[0.0, 0.0]]), jnp.array([[5.0]])]
  assert adversarial.feature_matching(fake, real) == 1.5 + 2
  by_real = jax.grad(lambda r: adversarial.feature_matching(fake, r))(real)
  assert all((g == 0).all() for g in by_real)
  with pytest.raises(ValueError, match='zip'):
    adversarial.feature_matching(fake, real[:1])


def test_soft_mask_keeps_the_inside_and_darkens_the_border():
  soft = adversarial.soft_mask(jnp.ones((1, 40, 40, 1)), size=9, sigma=2.0)[0, ..., 0]
  assert soft[20, 20] == pytest.approx(1.0) and soft[0, 20] < 0.7


def test_sm_gan_variants_have_opposite_labels():
  mask = jnp.zeros((1, 32, 32, 1)).at[:, 8:24, 8:24].set(1.0)
  ones = jnp.ones((1, 4, 4, 1))
  # The paper's ideal discriminator says 1 of real patches and 1 - soft mask of completed ones.
  real, fake = adversarial.sm_gan_discriminator(
    ones, 1 - adversarial.soft_mask(mask, 9, 2.0), mask, size=9, sigma=2.0
  )
  assert real == 0 and fake == 0
  real, fake = adversarial.sm_gan_discriminator(
    0 * ones, adversarial.soft_mask(mask, 9, 2.0), mask, variant='released', size=9, sigma=2.0
  )
  assert real == 0 and fake == 0
  # The generator: hole pixels only, or all of them.
  outside = jnp.where(mask == 1, 1.0, 3.0)
  assert adversarial.sm_gan_generator(outside, mask) == 0
  assert adversarial.sm_gan_generator(outside, mask, variant='released') == pytest.approx(4 * 0.75)
  with pytest.raises(ValueError, match="'other' must be 'paper' or 'released'"):
    adversarial.sm_gan_generator(ones, mask, variant='other')
