import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.systems._shared import modules


def test_pictures_without_a_known_pixel_keep_their_numbers_and_lose_their_gradient():
  outputs = [jnp.ones((3, 4, 4, 3)), 2 * jnp.ones((3, 2, 2, 3))]
  mask = jnp.ones((3, 4, 4, 1)).at[0].set(0).at[1, 3, 3].set(0)

  total = lambda outputs: sum(x.sum() for x in modules.only_of_known(outputs, mask))
  for x, same in zip(outputs, modules.only_of_known(outputs, mask), strict=True):
    np.testing.assert_array_equal(x, same)
  for gradient in jax.grad(total)(outputs):
    assert (gradient[:2] == 1).all() and not gradient[2].any()
