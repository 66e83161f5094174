import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.weights import store


@pytest.fixture(scope='session')
def narrow_glcic():
  """(path, image size) -> its generator's parameters; writes a weights file of a narrow GLCIC."""

  def write(path, size):
    config = systems.default_config('glcic')
    config.model.update(dict(width=4, discriminator_width=2, discriminator_features=8))
    config.model.update(dict(image_size=size, local_size=32))
    recipe = systems.make_recipe(config)
    batch = {
      'image': jnp.zeros((1, size, size, 3)),
      'mask': jnp.zeros((1, size, size, 1)),
      'id': jnp.zeros(1, jnp.int32),
    }
    shapes = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    # Numbers of any kind: compiling `init` takes longer than all that is measured with them.
    numbers = lambda x: rng.uniform(0.01, 0.1, x.shape).astype(x.dtype)
    params, stats = jax.tree.map(numbers, shapes)
    pick = lambda tree: {'generator': tree['generator']}
    store.save(path, 'glcic', config, pick(params), pick(stats))
    return params['generator']

  return write
