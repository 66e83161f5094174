"""What every network with a fill starts as."""

import initial
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.layers.fills import FILLS


def check_start(generator, image, mask, heads):
  """Untrained it gives the fill, reads nothing in the hole, and its last layers get a gradient.

  Args:
    generator: with a fill.
    image: f32[B,H,W,3].
    mask: f32[B,H,W,1].
    heads: paths, as ('ifkpb', 'kernels'), of the layers that start at zero.
  """
  # Other layers' gradients are not asked for: they would take long to compile.
  only_heads = lambda path, x: (
    x if tuple(key.key for key in path[1:-1]) in heads else jax.lax.stop_gradient(x)
  )
  variables = initial.values(lambda key: generator.init(key, image, mask), seed=1)

  def loss(variables, image):
    variables = jax.tree_util.tree_map_with_path(only_heads, variables)
    out = generator.apply(variables, image, mask)['out']
    # Beside the network, where the compiler can find that both begin with the same fill.
    return jnp.abs(out - image).mean(), (out, FILLS[generator.fill](image, mask))

  run = jax.jit(jax.grad(loss, has_aux=True))
  image, mask = np.asarray(image), np.asarray(mask)
  gradient, (out, fill) = run(variables, image)
  np.testing.assert_allclose(out, fill, atol=1e-5)
  np.testing.assert_array_equal(out, run(variables, np.where(mask == 1, 1 - image, image))[1][0])
  for path in heads:
    layer = gradient['params']
    for name in path:
      layer = layer[name]
    assert np.abs(layer['kernel']).max() > 0, path
