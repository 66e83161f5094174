"""Losses over no hole, a hole of one pixel and nothing but hole: finite, and of the usual size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import adversarial, reconstruction, regularisers
from jaxinpaint.systems.glcic.recipe import completion_loss

SIDE = 16
rng = np.random.default_rng(0)
OUT, IMAGE = (jnp.asarray(rng.random((2, SIDE, SIDE, 3)), jnp.float32) for _ in range(2))


def hole(pixels):
  mask = np.zeros((2, SIDE * SIDE, 1), np.float32)
  mask[:, :pixels] = 1
  return jnp.asarray(mask.reshape(2, SIDE, SIDE, 1))


def critic(x):
  return jnp.square(x).sum((1, 2, 3))


def penalty(out, image, mask):
  value, _ = adversarial.gradient_penalty(critic, image, out, alpha=jnp.zeros(2), mask=mask)
  return value


def found_hole(out, image, mask):
  real, fake = (x.mean(-1, keepdims=True) for x in (image, out))
  return sum(adversarial.sm_gan_discriminator(real, fake, mask, size=5, sigma=1.0))


LOSSES = {
  'l1': lambda out, image, mask: reconstruction.l1(out, image, mask),
  'l1 over mask mean': reconstruction.l1_over_mask_mean,
  'l1 of the hole': lambda *a: reconstruction.masked_l1(*a, over_region=True),
  'l1 of the known': lambda out, image, mask: reconstruction.masked_l1(
    out, image, 1 - mask, over_region=True
  ),
  'l1 by confidence': lambda out, image, mask: reconstruction.confidence_l1(
    out, image, mask, reconstruction.confidence_mask(mask)
  ),
  'psnr': reconstruction.negative_psnr,
  'total variation': lambda out, image, mask: regularisers.total_variation(out, mask),
  'gradient penalty': penalty,
  'SM-PatchGAN, discriminator': found_hole,
  'SM-PatchGAN, generator': lambda out, image, mask: adversarial.sm_gan_generator(
    out.mean(-1, keepdims=True), mask
  ),
  'completion': completion_loss,
}


@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_is_finite_and_of_the_usual_size_for_every_hole(name):
  def measured(pixels):
    value, gradient = jax.value_and_grad(LOSSES[name])(OUT, IMAGE, hole(pixels))
    assert np.isfinite(value) and np.isfinite(gradient).all(), (name, pixels)
    # Of the sum over pixels: what a bias of the network gets.
    return abs(value), np.abs(gradient).sum()

  usual = measured(SIDE * SIDE // 4)
  for pixels in (0, 1, SIDE * SIDE):
    # L1 is divided by 1 % of hole at least, and by 25 % here: a factor of 25. Division by the share
    # of one pixel would be a factor of 128.
    for got, wanted in zip(measured(pixels), usual, strict=True):
      assert got <= 30 * wanted, (name, pixels)


def test_without_a_hole_there_is_nothing_to_learn_about_it():
  of_hole = (
    'l1',
    'l1 of the hole',
    'l1 by confidence',
    'psnr',
    'gradient penalty',
    'SM-PatchGAN, generator',
  )
  for name in (*of_hole, 'total variation', 'completion'):
    value, gradient = jax.value_and_grad(LOSSES[name])(OUT, IMAGE, hole(0))
    assert value == 0 and not gradient.any(), name
