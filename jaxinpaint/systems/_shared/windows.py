"""Parts of images, cut out at places known only inside a compiled step; their sizes are static.

A window is given by its top and left, i32[B] each, one per sample. Gradients flow through the cut.
"""

import jax
import jax.numpy as jnp

Window = tuple[jax.Array, jax.Array]


def hole_box(mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """The smallest box around each hole; the whole image if it has no hole.

  Args:
    mask: [B,H,W,1], 1 = hole.

  Returns:
    Top, bottom, left and right, i32[B] each; bottom and right are exclusive: the first row below
    and the first column beside the box.
  """
  hole = mask[..., 0] > 0.5
  sides = []
  for axis in (2, 1):
    some = hole.any(axis)
    length = some.shape[1]
    # argmax of booleans is the index of the first True, and 0 if there is none.
    sides += [jnp.argmax(some, 1), length - jnp.argmax(some[:, ::-1], 1)]
  top, bottom, left, right = (side.astype(jnp.int32) for side in sides)
  return top, bottom, left, right


def random_window(rng: jax.Array, mask: jax.Array, size: int) -> Window:
  """A window of size x size at a uniform place in each image; only the shape of `mask` is used."""
  b, height, width = mask.shape[:3]
  rows, columns = jax.random.split(rng)
  top = jax.random.randint(rows, (b,), 0, height - size + 1)
  return top, jax.random.randint(columns, (b,), 0, width - size + 1)


def middle_window(mask: jax.Array, size: int) -> Window:
  """The window of size x size around the middle of the hole's box, moved to stay inside the image.

  If a box mask was shrunk by equal amounts on opposite sides, the result is its original box. For
  an image without a hole, it is the middle of the image.

  Args:
    mask: [B,H,W,1], 1 = hole; neither side below `size`.
    size: side of the window.
  """
  height, width = mask.shape[1:3]
  top, bottom, left, right = hole_box(mask)
  place = lambda low, high, length: jnp.clip((low + high - size) // 2, 0, length - size)
  return place(top, bottom, height), place(left, right, width)


def window_on_hole(rng: jax.Array, mask: jax.Array, size: int) -> Window:
  """A window of size x size, uniform among those that contain the image's whole hole.

  If the hole is larger than the window, the window is inside the hole's box. If the image has no
  hole, the window is anywhere.

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


def window_on_hole_or_middle(rng: jax.Array, mask: jax.Array, size: int) -> Window:
  """As `window_on_hole`, but on an axis along which the hole is too large: around its middle."""
  top, bottom, left, right = hole_box(mask)
  drawn, middle = window_on_hole(rng, mask, size), middle_window(mask, size)
  return (
    jnp.where(bottom - top <= size, drawn[0], middle[0]),
    jnp.where(right - left <= size, drawn[1], middle[1]),
  )


def cut(x: jax.Array, window: Window, size: int) -> jax.Array:
  """[B,H,W,C] -> [B,size,size,C], the pixels of the windows."""
  one = lambda x, top, left: jax.lax.dynamic_slice(x, (top, left, 0), (size, size, x.shape[-1]))
  return jax.vmap(one)(x, *window)


def cut_resized(
  x: jax.Array, box: tuple[jax.Array, jax.Array, jax.Array, jax.Array], size: int
) -> jax.Array:
  """[B,H,W,C] -> [B,size,size,C], each sample's box stretched to a square.

  Bilinear without antialiasing; sample i is at i * side / size, as in TensorFlow 1.

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
