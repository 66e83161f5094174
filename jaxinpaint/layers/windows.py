"""Parts of images, cut out at places known only inside a compiled step; their sizes are static.

A window is its top and left, i32[B] each, one per sample. Gradients flow through the cut.
"""

import jax
import jax.numpy as jnp


def hole_box(mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """The smallest box around each hole; the whole image where there is none.

  Args:
    mask: [B,H,W,1], 1 = hole.

  Returns:
    Top, bottom, left and right, i32[B] each; bottom and right are the first row and column below
    and beside it.
  """
  hole = mask[..., 0] > 0.5
  sides = []
  for axis in (2, 1):
    some = hole.any(axis)
    length = some.shape[1]
    # argmax of booleans is the first True, and 0 where there is none.
    sides += [jnp.argmax(some, 1), length - jnp.argmax(some[:, ::-1], 1)]
  return tuple(side.astype(jnp.int32) for side in sides)


def random_window(rng: jax.Array, mask: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """A window of size x size at a uniform place in each image; only the shape of `mask` counts."""
  b, height, width = mask.shape[:3]
  rows, columns = jax.random.split(rng)
  top = jax.random.randint(rows, (b,), 0, height - size + 1)
  return top, jax.random.randint(columns, (b,), 0, width - size + 1)


def window_on_hole(rng: jax.Array, mask: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """A window of size x size, uniform among those that hold the image's whole hole.

  If the hole is larger than the window, the window lies within the box of the hole. In an image
  without a hole it lies anywhere.

  Args:
    rng: key.
    mask: [B,H,W,1], 1 = hole; neither side below `size`.
    size: side of the window.
  """
  height, width = mask.shape[1:3]
  top, bottom, left, right = hole_box(mask)
  keys = jax.random.split(rng)

  def place(key, low, high, length):
    a, b = jnp.clip(high - size, 0, length - size), jnp.clip(low, 0, length - size)
    return jax.random.randint(key, a.shape, jnp.minimum(a, b), jnp.maximum(a, b) + 1)

  return place(keys[0], top, bottom, height), place(keys[1], left, right, width)


def cut(x: jax.Array, window: tuple[jax.Array, jax.Array], size: int) -> jax.Array:
  """[B,H,W,C] -> [B,size,size,C], the content of the windows."""
  one = lambda x, top, left: jax.lax.dynamic_slice(x, (top, left, 0), (size, size, x.shape[-1]))
  return jax.vmap(one)(x, *window)


def cut_resized(
  x: jax.Array, box: tuple[jax.Array, jax.Array, jax.Array, jax.Array], size: int
) -> jax.Array:
  """[B,H,W,C] -> [B,size,size,C], each sample's box stretched to a square.

  Bilinear without antialiasing; sample i lies at i * side / size, as in TensorFlow 1.

  Args:
    x: the images.
    box: as of `hole_box`.
    size: side of the result.
  """
  top, bottom, left, right = box

  def weights(low, high, length):
    step = (high - low).astype(jnp.float32) / size
    at = low[:, None] + jnp.arange(size) * step[:, None]
    at = jnp.minimum(at, high[:, None] - 1)
    return jnp.maximum(0.0, 1 - jnp.abs(at[..., None] - jnp.arange(length)))  # a constant to x

  rows = weights(top, bottom, x.shape[1])
  columns = weights(left, right, x.shape[2])
  y = jnp.einsum('boi,biwc->bowc', rows, x.astype(jnp.float32), precision='highest')
  return jnp.einsum('boi,bhic->bhoc', columns, y, precision='highest')
