import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.losses import regularisers


def test_total_variation_by_hand():
  image = jnp.array([[0.0, 1.0, 3.0], [0.0, 0.0, 5.0]])[None, ..., None]
  across = (1 + 2 + 0 + 5) / 4
  down = (0 + 1 + 2) / 3
  assert regularisers.total_variation(image) == pytest.approx(across + down)


def test_total_variation_of_a_hole_counts_pairs_within_one_pixel_of_it():
  # A ramp of slope 1 across 7 columns; the hole is one pixel, its dilation 3 x 3: 2 pairs in each
  # of 3 rows, and none that differ downwards.
  image = jnp.tile(jnp.arange(7.0), (5, 1))[None, ..., None]
  hole = jnp.zeros((1, 5, 7, 1)).at[0, 2, 3].set(1.0)
  assert regularisers.total_variation(image, hole) == pytest.approx(6 / 35)
  assert regularisers.total_variation(image.transpose(0, 2, 1, 3), hole.transpose(0, 2, 1, 3)) == (
    pytest.approx(6 / 35)
  )
  assert regularisers.total_variation(image, 0 * hole) == 0


def test_a_flat_image_has_no_gradient():
  gradient = jax.grad(regularisers.total_variation)(jnp.full((1, 4, 4, 1), 0.3))
  assert (gradient == 0).all()


def test_total_variation_is_float32():
  image = jnp.full((1, 4, 4, 1), 0.3, jnp.bfloat16)
  assert regularisers.total_variation(image).dtype == jnp.float32


def test_path_lengths_of_a_linear_generator():
  """Images J_n w_n summed over latents n: each latent's length is |J_n^T noise| / sqrt(H W)."""
  rng = np.random.default_rng(0)
  matrices = rng.normal(size=(2, 5, 3 * 4 * 1)).astype(np.float32)
  draw = lambda w: jnp.einsum('bnd,ndp->bp', w, matrices).reshape(-1, 3, 4, 1)
  w, key = jnp.asarray(rng.normal(size=(6, 2, 5)), jnp.float32), jax.random.key(3)
  noise = np.asarray(jax.random.normal(key, (6, 3, 4, 1))).reshape(6, 12) / np.sqrt(12)
  squares = np.square(np.einsum('ndp,bp->bnd', matrices, noise)).sum(-1).mean(-1)
  np.testing.assert_allclose(regularisers.path_lengths(draw, w, key), np.sqrt(squares), rtol=1e-4)
  flat = lambda w: jax.grad(
    lambda w: regularisers.path_lengths(lambda v: 0 * draw(v), w, key).sum()
  )(w)
  np.testing.assert_array_equal(flat(w), 0)  # and not NaN
