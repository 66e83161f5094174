import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import adversarial, perceptual, reconstruction, regularisers

BF16 = jnp.bfloat16


def test_l1_by_hand_with_its_divisors():
  pred, target = jnp.zeros((1, 2, 2, 1)), jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
  mask = jnp.array([0.0, 0.0, 0.0, 1.0]).reshape(1, 2, 2, 1)
  assert float(reconstruction.l1(pred, target)) == 2.5
  assert float(reconstruction.l1(pred, target, mask, over_mask_mean=True)) == 10.0
  weighted = reconstruction.l1(pred, target, mask, hole_weight=6.0, valid_weight=1.0)
  assert float(weighted) == (1 + 2 + 3 + 24) / 4
  empty = reconstruction.l1(pred, target, jnp.zeros_like(mask), over_mask_mean=True)
  assert float(empty) == 2.5
  with pytest.raises(ValueError, match='pass mask'):
    reconstruction.l1(pred, target, over_mask_mean=True)
  assert float(reconstruction.l2(pred, target)) == 7.5


def test_exact_ties_have_no_gradient():
  x = jnp.array([-2.0, 0.0, 3.0])
  assert jax.grad(lambda v: reconstruction.absolute(v).sum())(x).tolist() == [-1, 0, 1]
  assert reconstruction.absolute(x).tolist() == [2, 0, 3]


def test_spatial_discount_measures_to_the_nearest_border():
  weights = reconstruction.spatial_discount_mask(4, 6, 0.5)[..., 0]
  assert weights[0].tolist() == [1.0] * 6 and weights[:, 0].tolist() == [1.0] * 4
  assert weights[2, 3] == max(0.5**2, 0.5**3) and weights[3, 3] == 0.5


@pytest.mark.parametrize(
  ('kind', 'real', 'fake', 'generator'),
  [
    ('non_saturating', np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0)), np.log1p(np.exp(-2.0))),
    ('logistic', np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0)), np.log1p(np.exp(-2.0))),
    ('hinge', 0.0, 3.0, -2.0),
    ('least_squares', 1.0, 4.0, 1.0),
    ('wasserstein', -2.0, 2.0, -2.0),
    (
      'least_squares_sigmoid',
      (1 / (1 + np.exp(-2)) - 1) ** 2,
      (1 / (1 + np.exp(-2))) ** 2,
      (1 / (1 + np.exp(-2)) - 1) ** 2,
    ),
  ],
)
def test_games_by_hand(kind, real, fake, generator):
  game, scores = adversarial.kind(kind), jnp.full((2, 3, 3, 1), 2.0)
  np.testing.assert_allclose(game.real(scores), real, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(game.fake(scores), fake, rtol=1e-6)
  np.testing.assert_allclose(game.generator(scores), generator, rtol=1e-6)
  scale = 0.5 if kind in ('non_saturating', 'hinge') or kind.startswith('least') else 1.0
  both = game.discriminator(scores.astype(BF16), scores.astype(BF16))
  np.testing.assert_allclose(both, scale * (real + fake), rtol=1e-6)
  assert both.dtype == jnp.float32


def test_saturated_logits_keep_a_gradient():
  gradient = jax.grad(lambda x: adversarial.non_saturating.generator(x))(jnp.array([-200.0]))
  assert float(gradient[0]) == -1.0
  with pytest.raises(ValueError, match='there are: non_saturating'):
    adversarial.kind('vanilla')


def test_gradient_penalty_is_finite_where_the_gradient_vanishes():
  real, fake = jnp.ones((2, 4, 4, 3)), jnp.zeros((2, 4, 4, 3))
  alpha = jnp.array([0.2, 0.7])

  def penalty(w):
    return adversarial.gradient_penalty(lambda x: w * x.sum((1, 2, 3)), real, fake, alpha)[0]

  value, slope = jax.value_and_grad(penalty)(0.0)
  assert float(value) == 1.0 and float(slope) == 0.0
  # w = 1: every gradient entry is 1, the norm sqrt(48).
  np.testing.assert_allclose(penalty(1.0), (np.sqrt(48) - 1) ** 2, rtol=1e-6)
  mask = jnp.zeros((2, 4, 4, 1)).at[:, 0, 0].set(1)
  critic = lambda x: x.astype(BF16).sum((1, 2, 3))
  masked, norms = adversarial.gradient_penalty(critic, real, fake, alpha, mask)
  np.testing.assert_allclose(norms, np.sqrt(3), rtol=1e-6)
  assert masked.dtype == jnp.float32


def test_r1_by_hand():
  got = adversarial.r1_penalty(lambda x: (3 * x).sum((1, 2, 3)), jnp.ones((2, 2, 2, 1)))
  assert float(got) == 9 * 4


def test_feature_matching_stops_at_the_real_features():
  fake, real = (
    [jnp.ones((1, 2, 2, 2)), jnp.zeros((1, 1))],
    [jnp.zeros((1, 2, 2, 2)), jnp.full((1, 1), 2.0)],
  )
  assert float(adversarial.feature_matching(fake, real)) == 3.0
  gradient = jax.grad(lambda r: adversarial.feature_matching(fake, r))(real)
  assert all(float(jnp.abs(g).max()) == 0 for g in gradient)


def test_gram_and_style_by_hand():
  x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)
  gram = perceptual.gram_matrix(x.astype(BF16))
  np.testing.assert_allclose(gram[0], np.array([[10.0, 14.0], [14.0, 20.0]]) / 4)
  zero = {'a': jnp.zeros_like(x)}
  assert float(perceptual.style({'a': x}, zero, ('a',))) == pytest.approx(58 / 16)
  assert float(perceptual.perceptual({'a': x}, zero, ('a', 'a'))) == 5.0


def test_soft_mask_blurs_with_zero_padding():
  mask = jnp.ones((1, 9, 7, 1))
  soft = adversarial.soft_mask(mask, size=3, sigma=1.0)[0, ..., 0]
  side = np.exp(-0.5) / (1 + 2 * np.exp(-0.5))
  np.testing.assert_allclose(soft[4, 3], 1.0, rtol=1e-6)
  np.testing.assert_allclose(soft[0, 3], 1 - side, rtol=1e-6)
  np.testing.assert_allclose(soft[0, 0], (1 - side) ** 2, rtol=1e-6)


def test_smgan_paper_labels_are_the_reverse_of_the_released():
  mask = jnp.zeros((1, 32, 32, 1)).at[:, 8:24, 8:24].set(1)
  perfect = 1 - adversarial.soft_mask(mask)
  real = jnp.ones((1, 4, 4, 1))
  assert float(adversarial.smgan_discriminator(real, perfect, mask)) < 1e-10
  assert float(adversarial.smgan_discriminator(real, perfect, mask, 'released')) > 1
  outside = 1 - mask
  assert float(adversarial.smgan_generator(outside, mask)) == 1.0
  assert float(adversarial.smgan_generator(outside, mask, 'released')) == pytest.approx(0.25)
  with pytest.raises(ValueError, match='there are: paper, released'):
    adversarial.smgan_generator(outside, mask, 'fixed')


def test_total_variation_by_hand():
  image = jnp.array([[0.0, 1.0], [3.0, 3.0]]).reshape(1, 2, 2, 1)
  assert float(regularisers.total_variation(image)) == (3 + 2) / 2 + (1 + 0) / 2
  wide = jnp.arange(5.0).reshape(1, 1, 5, 1).repeat(2, 1) ** 2
  mask = jnp.zeros((1, 2, 5, 1)).at[:, :, 0].set(1)
  # The hole is column 0; grown by one it holds the pair of columns 0 and 1 alone.
  assert float(regularisers.total_variation(wide, mask)) == pytest.approx(2 * 1 / 8)
