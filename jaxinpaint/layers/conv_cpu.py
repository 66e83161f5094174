"""Convolutions in the forms that XLA's CPU backend runs fast; same numbers as the plain forms.

Measured (docs/performance.md) with the jax versions that the project takes:
  - a convolution without zero padding runs some three times slower than a padded one (thirty times
    with few output channels), so one row of zeros is added at the bottom and the result's last row
    is dropped;
  - the weight gradient of a large map runs at a tenth of the machine's speed, and at half of it
    over blocks of rows whose cotangent stays in cache, so it is summed over blocks; where both
    sides have 24 channels or more, a matrix product for each tap is up to three times as fast as a
    convolution (with 16 channels it is slower, and with dilation it gains nothing);
  - the weight gradient of an input-dilated (transposed) convolution is a hundred times slower than
    necessary, so transposed convolutions are sub-pixel convolutions, and their gradients are a
    strided convolution and its weight gradient;
  - a kernel of many weights on a map of few positions is read for few multiplications, so what it
    costs is passes over its memory, of which the other forms make several (they turn it, or pack
    it); here it is multiplied where it lies, one matrix product for each tap;
  - a depthwise convolution, which has a kernel for each channel, runs at a hundredth of the speed
    of a sum of shifted copies, which XLA makes one loop of; in its weight gradient, XLA's sums over
    a whole map's rows and columns are four times slower than products of blocks with ones;
  - the gradients of mirroring and of doubling, as jax derives them, pad and add; here they are sums
    of slices.

The derivatives of `conv`, `conv_transpose` and `weight_gradient` are again these three, and those
of `depthwise` and `depthwise_gradient` these two, so reverse-mode differentiation of any order (a
gradient penalty) uses nothing else. Forward mode is not defined.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Share = float | jax.Array
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
BLOCK_BYTES = 2**20  # of the cotangent, in the weight gradient
# With this many channels on both sides, the weight gradient is a sum of matrix products over blocks
# of input or cotangent of PRODUCT_BYTES.
WIDE = 24
PRODUCT_BYTES = 2**18
# A kernel of so many bytes, whose result (of a transposed convolution: whose input) has so few
# positions in the whole batch, is multiplied where it lies.
FEW, MANY_BYTES = 256, 2**20
DEPTHWISE_BYTES = 2**16  # of the cotangent, in the weight gradient of a depthwise convolution
NARROW = 16  # with fewer output channels, input and cotangent swap roles in the weight gradient
# How profiles call what is done for a convolution, whatever operations do it.
CONVOLUTION = 'convolution'
INPUT_GRADIENT, WEIGHT_GRADIENT = 'convolution_input_gradient', 'convolution_weight_gradient'


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
@jax.named_scope(CONVOLUTION)
def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int) -> jax.Array:
  """[B,H,W,I] with [k,k,I,O]; `stride` and `dilation` may not both exceed 1."""
  k = kernel.shape[0]
  reach = (k - 1) * dilation + 1
  height, width = ((n + 2 * padding - reach) // stride + 1 for n in x.shape[1:3])
  if _few((x.shape[0], height, width), kernel.shape):
    return _few_conv(x, kernel, height, width, stride, padding, dilation)
  extra = stride if padding == 0 and k > 1 else 0
  y = lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding + extra), (padding, padding)],
    rhs_dilation=(dilation, dilation),
    dimension_numbers=DIMENSIONS,
  )
  return y[:, :-1] if extra else y


def _conv_fwd(x, kernel, stride, padding, dilation):
  return conv(x, kernel, stride, padding, dilation), (x, kernel)


def _conv_bwd(stride, padding, dilation, saved, g):
  x, kernel = saved
  k = kernel.shape[0]
  return (
    _input_gradient(g, kernel, x.shape[1:3], stride, padding, dilation),
    weight_gradient(x, g, k, stride, padding, dilation),
  )


conv.defvjp(_conv_fwd, _conv_bwd)


@jax.named_scope(INPUT_GRADIENT)
def _input_gradient(g, kernel, size, stride, padding, dilation):
  """Adjoint of `conv` in x, whose height and width are `size`."""
  if dilation == 1 and _few(g.shape[:3], kernel.shape):
    return _few_transpose(g, kernel, stride, padding, size, turned=True)
  swapped = kernel.transpose(0, 1, 3, 2)
  if stride > 1:
    return conv_transpose(g, swapped, stride, padding, tuple(size))
  return conv(g, swapped[::-1, ::-1], 1, (kernel.shape[0] - 1) * dilation - padding, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
@jax.named_scope(CONVOLUTION)
def conv_transpose(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int, size: tuple[int, int]
) -> jax.Array:
  """out[stride*i + t - padding] += x[i] * kernel[t], cropped or filled with zeros to `size`.

  Output row stride*m + r - padding reads input rows m, m-1, ... through taps r, r + stride, ...
  All stride**2 residues r share one convolution whose output channels are (residue row, residue
  column, O); putting them side by side gives the uncropped result.
  """
  if _few(x.shape[:3], kernel.shape):
    return _few_transpose(x, kernel, stride, padding, size)
  b, _, _, c = x.shape
  k, features = kernel.shape[0], kernel.shape[-1]
  taps = -(-k // stride)
  fill = taps * stride - k
  kernel = jnp.pad(kernel, ((0, fill), (0, fill), (0, 0), (0, 0)))
  kernel = kernel.reshape(taps, stride, taps, stride, c, features)[::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, c, stride**2 * features)
  y = lax.conv_general_dilated(
    x, kernel, (1, 1), [(taps - 1, taps - 1)] * 2, dimension_numbers=DIMENSIONS
  )
  rows, columns = y.shape[1:3]
  y = y.reshape(b, rows, columns, stride, stride, features).transpose(0, 1, 3, 2, 4, 5)
  return _cropped(y.reshape(b, rows * stride, columns * stride, features), padding, size)


def _cropped(y, padding, size):
  crop = [(-padding, padding + n - m) for n, m in zip(size, y.shape[1:3], strict=True)]
  return _pad(y, *crop)


def _conv_transpose_fwd(x, kernel, stride, padding, size):
  return conv_transpose(x, kernel, stride, padding, size), (x, kernel)


def _conv_transpose_bwd(stride, padding, size, saved, g):
  x, kernel = saved
  k, sides = kernel.shape[0], x.shape[1:3]
  if _few(x.shape[:3], kernel.shape):
    return (
      jax.named_scope(INPUT_GRADIENT)(_few_conv)(
        g, kernel, *sides, stride, padding, 1, turned=True
      ),
      jax.named_scope(WEIGHT_GRADIENT)(_few_gradient)(g, x, k, stride, padding, 1, turned=True),
    )
  gradient = weight_gradient(g, x, k, stride, padding, 1)
  with jax.named_scope(INPUT_GRADIENT):
    return conv(g, kernel.transpose(0, 1, 3, 2), stride, padding, 1), gradient.transpose(0, 1, 3, 2)


conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
@jax.named_scope(WEIGHT_GRADIENT)
def weight_gradient(
  x: jax.Array, g: jax.Array, k: int, stride: int, padding: int, dilation: int
) -> jax.Array:
  """dW[k,k,I,O] of `conv`, for its input x and the cotangent g of its result."""
  _, height, width, features = g.shape
  if _few(g.shape[:3], (k, k, x.shape[-1], features)):
    return _few_gradient(x, g, k, stride, padding, dilation)
  if features < min(NARROW, x.shape[-1]) and stride == 1:  # the same sum, taken from the other side
    swapped = weight_gradient(g, x, k, 1, (k - 1) * dilation - padding, dilation)
    return swapped[::-1, ::-1].transpose(0, 1, 3, 2)
  if min(features, x.shape[-1]) >= WIDE:
    of_block = functools.partial(_products, k=k, stride=stride, dilation=dilation)
    row_bytes, limit = 4 * width * max(features, x.shape[-1]), PRODUCT_BYTES
    turned = lambda total: total.transpose(0, 2, 1).reshape(k, k, -1, features)
  else:
    of_block = functools.partial(_transposed, stride=stride, dilation=dilation)
    row_bytes, limit = 4 * width * features, BLOCK_BYTES // stride
    turned = lambda total: total.transpose(1, 2, 0, 3)
  reach = lambda n: (n - 1) * stride + (k - 1) * dilation + 1
  fills = [reach(n) - m - padding for n, m in zip((height, width), x.shape[1:3], strict=True)]
  kind, x = x.dtype, _pad(x, *[(padding, fill) for fill in fills])
  total = _over_blocks(of_block, x, g, row_bytes, limit, reach, stride)
  return turned(total).astype(kind)  # turned once, after the sum


def _few(sides: tuple[Any, ...], kernel: tuple[int, ...]) -> bool:
  """Whether a kernel of this shape is multiplied where it lies.

  Args:
    sides: (B, height, width) of the map; of symbolic ones it is not known, so it is not.
    kernel: its shape.
  """
  positions = math.prod(sides)
  return isinstance(positions, int) and positions <= FEW and 4 * math.prod(kernel) >= MANY_BYTES


def _few_conv(x, kernel, height, width, stride, padding, dilation, *, turned=False):
  """`conv`, whose result has these sides; with a kernel [k,k,I,O] or, turned, [k,k,O,I]."""
  seen = _seen(x, height, width, kernel.shape[0], stride, padding, dilation)
  y = _tap_products(seen, kernel, turned).sum(0)
  return y.reshape(-1, height, width, y.shape[-1])


def _few_transpose(x, kernel, stride, padding, size, *, turned=False):
  """`conv_transpose`; with a kernel [k,k,I,O] or, turned, [k,k,O,I]."""
  b, height, width, c = x.shape
  k = kernel.shape[0]
  each = jnp.broadcast_to(x.reshape(1, -1, c), (k**2, b * height * width, c))
  y = _tap_products(each, kernel, turned).reshape(k, k, b, height, width, -1)
  # Taps by (row of the grid, residue, column, residue); a tap one row on is a row further down.
  taps = -(-k // stride)
  more, fill, features = taps - 1, taps * stride - k, y.shape[-1]
  y = jnp.pad(y, ((0, fill), (0, fill), *[(0, 0)] * 4))
  y = y.reshape(taps, stride, taps, stride, b, height, width, features)
  down = lambda i: jnp.pad(y[i], (*[(0, 0)] * 4, (i, more - i), (0, 0), (0, 0)))
  y = sum(map(down, range(taps)))
  right = lambda i: jnp.pad(y[:, i], (*[(0, 0)] * 4, (i, more - i), (0, 0)))
  y = sum(map(right, range(taps))).transpose(2, 3, 0, 4, 1, 5)
  y = y.reshape(b, (height + more) * stride, (width + more) * stride, features)
  return _cropped(y, padding, size)


def _few_gradient(x, g, k, stride, padding, dilation, *, turned=False):
  """`weight_gradient`, [k,k,I,O] or, turned, [k,k,O,I]."""
  _, height, width, features = g.shape
  seen = _seen(x, height, width, k, stride, padding, dilation)
  g = g.reshape(1, -1, features)
  if g.shape[1] == 1:
    # XLA multiplies two vectors elementwise, and computes all that g is made of for each weight.
    seen, g = (jnp.pad(a, ((0, 0), (0, 1), (0, 0))) for a in (seen, g))
  each = jnp.broadcast_to(g, (k**2, *g.shape[1:]))
  pair = (each, seen) if turned else (seen, each)
  y = lax.dot_general(*pair, (((1,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32)
  return y.reshape(k, k, *y.shape[1:]).astype(x.dtype)


def _seen(x, height, width, k, stride, padding, dilation):
  """[k*k,B*height*width,I]: what each tap of a kernel sees at each position of the result."""
  reach = lambda n: (n - 1) * stride + (k - 1) * dilation + 1
  fills = [reach(n) - m - padding for n, m in zip((height, width), x.shape[1:3], strict=True)]
  x = _pad(x, *[(padding, fill) for fill in fills])

  def taps(x, n, axis):
    ends = [(i, i + (n - 1) * stride + 1) for i in range(0, k * dilation, dilation)]
    return jnp.stack([lax.slice_in_dim(x, *end, stride, axis) for end in ends])

  seen = taps(taps(x, height, 1), width, 3).swapaxes(0, 1)
  return seen.reshape(k**2, -1, x.shape[-1])


def _tap_products(seen: jax.Array, kernel: jax.Array, turned: bool) -> jax.Array:
  """[taps,N,I] with [k,k,I,O] or, turned, [k,k,O,I] -> [taps,N,O]."""
  kernel = kernel.reshape(-1, *kernel.shape[2:])
  dimensions = (((2,), (2 if turned else 1,)), ((0,), (0,)))
  y = lax.dot_general(seen, kernel, dimensions, preferred_element_type=jnp.float32)
  return y.astype(seen.dtype)


def _over_blocks(
  of_block: Callable[[jax.Array, jax.Array], jax.Array],
  x: jax.Array,
  g: jax.Array,
  row_bytes: int,
  limit: int,
  reach: Callable[[int], int],
  stride: int = 1,
) -> jax.Array:
  """The sum of `of_block` over blocks of g, each with the rows of x that it belongs to.

  Args:
    of_block: (x, g) -> an array of the same shape for every block.
    x: input, with its padding.
    g: cotangent.
    row_bytes: of a row of a block.
    limit: bytes of a block.
    reach: rows of g -> rows of x that they read.
    stride: rows of x from one row of g to the next.
  """
  b, height, width, features = g.shape
  samples, rows = _block(b, height, row_bytes, limit)
  if samples == b and rows == height:
    return of_block(x, g)
  per_sample = height // rows

  def step(total, i):
    start = (i // per_sample * samples, i % per_sample * rows, 0, 0)
    x_start = (start[0], start[1] * stride, 0, 0)
    x_block = lax.dynamic_slice(x, x_start, (samples, reach(rows), *x.shape[2:]))
    g_block = lax.dynamic_slice(g, start, (samples, rows, width, features))
    return total + of_block(x_block, g_block), None

  sums = jax.eval_shape(of_block, x, g)
  zero = jnp.zeros(sums.shape, sums.dtype)
  return lax.scan(step, zero, jnp.arange(b // samples * per_sample))[0]


def _transposed(x, g, *, stride, dilation):
  """[I,k,k,O]: a convolution whose input channels are the batch and whose batch is I."""
  return lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    g.transpose(1, 2, 0, 3),
    (dilation, dilation),
    'VALID',
    rhs_dilation=(stride, stride),
    dimension_numbers=DIMENSIONS,
    preferred_element_type=jnp.float32,
  )


def _products(x, g, *, k, stride, dilation):
  """[k*k,O,I]: a matrix product for each tap."""
  b, height, width, features = g.shape
  turned = g.reshape(-1, features).T
  reach = lambda n: (n - 1) * stride + 1

  def tap(n):
    start = (0, n // k * dilation, n % k * dilation, 0)
    seen = lax.dynamic_slice(x, start, (b, reach(height), reach(width), x.shape[-1]))
    seen = seen[:, ::stride, ::stride].reshape(-1, x.shape[-1])
    return jnp.matmul(turned, seen, preferred_element_type=jnp.float32)

  return lax.map(tap, jnp.arange(k**2))


def _weight_gradient_fwd(x, g, k, stride, padding, dilation):
  return weight_gradient(x, g, k, stride, padding, dilation), (x, g)


def _weight_gradient_bwd(k, stride, padding, dilation, saved, u):
  x, g = saved
  return (
    _input_gradient(g, u, x.shape[1:3], stride, padding, dilation),
    conv(x, u, stride, padding, dilation),
  )


weight_gradient.defvjp(_weight_gradient_fwd, _weight_gradient_bwd)


def shifted_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """[B,H,W,C] with [k,k,C], k odd, a copy of x for each tap; zeros around it keep the size."""
  k, (_, height, width, _) = kernel.shape[0], x.shape
  x = _pad(x, (k // 2, k // 2), (k // 2, k // 2))
  terms = [kernel[i, j] * x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
  return sum(terms[1:], terms[0])


@jax.custom_vjp
def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`shifted_sum`, whose kernel's gradient is summed in blocks that stay in the cache."""
  return shifted_sum(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_gradient(x: jax.Array, g: jax.Array, k: int) -> jax.Array:
  """dW[k,k,C] of `depthwise`, for its input x and the cotangent g of its result."""
  _, _, width, c = g.shape

  def of_block(x, g):
    ones = jnp.ones((1, g.size // c), jnp.float32)

    def tap(n):
      seen = lax.dynamic_slice(x, (0, n // k, n % k, 0), g.shape)
      return ones @ (seen * g).astype(jnp.float32).reshape(-1, c)

    return lax.map(tap, jnp.arange(k**2))

  padded = _pad(x, (k // 2, k // 2), (k // 2, k // 2))
  sums = _over_blocks(of_block, padded, g, 4 * width * c, DEPTHWISE_BYTES, lambda n: n + k - 1)
  return sums.reshape(k, k, c).astype(x.dtype)


depthwise.defvjp(
  lambda x, kernel: (depthwise(x, kernel), (x, kernel)),
  lambda saved, g: (
    depthwise(g, saved[1][::-1, ::-1]),
    depthwise_gradient(saved[0], g, len(saved[1])),
  ),
)
depthwise_gradient.defvjp(
  lambda x, g, k: (depthwise_gradient(x, g, k), (x, g)),
  lambda k, saved, u: (depthwise(saved[1], u[::-1, ::-1]), depthwise(saved[0], u)),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def reflect_pad(x: jax.Array, padding: int) -> jax.Array:
  """[B,H,W,C] mirrored about its border pixels; its gradient adds strips to a crop."""
  widths = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  return jnp.pad(x, widths, mode='reflect')


def _reflect_pad_bwd(padding, _, g):
  p = padding
  for axis in (1, 2):
    n = g.shape[axis] - 2 * p
    part = lambda a, b, g=g, axis=axis: lax.slice_in_dim(g, a, b, axis=axis)
    low, high = lax.rev(part(0, p), [axis]), lax.rev(part(n + p, n + 2 * p), [axis])
    core = part(p, n + p)
    if n - 1 - p < 1 + p:  # so small that both strips fall on the same pixels
      widths = lambda before, axis=axis, n=n: [
        (before, n - before - p) if a == axis else (0, 0) for a in range(4)
      ]
      g = core + jnp.pad(low, widths(1)) + jnp.pad(high, widths(n - 1 - p))
      continue
    part = lambda a, b, core=core, axis=axis: lax.slice_in_dim(core, a, b, axis=axis)
    pieces = [part(0, 1), part(1, 1 + p) + low, part(1 + p, n - 1 - p)]
    g = jnp.concatenate([*pieces, part(n - 1 - p, n - 1) + high, part(n - 1, n)], axis)
  return (g,)


reflect_pad.defvjp(lambda x, padding: (reflect_pad(x, padding), None), _reflect_pad_bwd)


def interleaved(x: jax.Array, before: Share, after: Share, axis: int) -> jax.Array:
  """Twice as many samples along `axis`: 2k lies by `before` before k, 2k + 1 by `after` behind it.

  Args:
    x: of rank 4.
    before: share of sample k - 1, a constant: a number, or an array that broadcasts against `x`.
    after: share of sample k + 1, likewise. Beyond the ends the last samples are repeated.
    axis: of the samples.
  """
  even = before * _earlier(x, x, axis) + (1 - before) * x
  odd = (1 - after) * x + after * _later(x, x, axis)
  both = jnp.stack([even, odd], axis + 1)
  return both.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def double(x: jax.Array, before: Share, after: Share, axis: int) -> jax.Array:
  """`interleaved`; its gradient is a sum of shifted samples, without padding."""
  return interleaved(x, before, after, axis)


def _double_bwd(axis, saved, g):
  before, after = saved
  pairs = g.reshape(*g.shape[:axis], -1, 2, *g.shape[axis + 1 :])
  even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
  near, far = before * even, after * odd  # what samples k - 1 and k + 1 have given
  given = _earlier(far, near, axis) + _later(near, far, axis)
  return (even - near) + (odd - far) + given, None, None


double.defvjp(
  lambda x, before, after, axis: (interleaved(x, before, after, axis), (before, after)),
  _double_bwd,
)


def _earlier(x: jax.Array, first: jax.Array, axis: int) -> jax.Array:
  """Sample k - 1 of `x` at k; the first one is that of `first`."""
  part = functools.partial(lax.slice_in_dim, axis=axis)
  return jnp.concatenate([part(first, 0, 1), part(x, 0, x.shape[axis] - 1)], axis)


def _later(x: jax.Array, last: jax.Array, axis: int) -> jax.Array:
  """Sample k + 1 of `x` at k; the last one is that of `last`."""
  part, n = functools.partial(lax.slice_in_dim, axis=axis), x.shape[axis]
  return jnp.concatenate([part(x, 1, n), part(last, n - 1, n)], axis)


def _block(b: int, height: int, row_bytes: int, limit: int) -> tuple[int, int]:
  """(samples, rows) of the largest block of whole samples, or of rows of one, within `limit`."""
  divisors = lambda n: [m for m in range(n, 0, -1) if n % m == 0]
  for samples in divisors(b):
    if samples * height * row_bytes <= limit:
      return samples, height
  return 1, next((r for r in divisors(height) if r * row_bytes <= limit), 1)


def _pad(x: jax.Array, rows: tuple[int, int], columns: tuple[int, int]) -> jax.Array:
  """Zeros around H and W; negative numbers crop."""
  return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
