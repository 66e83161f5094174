"""Layers against a plain formulation of each, in one run.

  python -m benchmarks.layers [--names filter,aot] [--dtype bfloat16] [--json OUT]

The plain formulation of a convolution is unfold and one matrix product
(`conv_general_dilated_patches`, einsum); of the predicted-kernel filter, unfold and einsum; of the
external attention, transposing each axis to the last and a dense product; of a transposed
convolution, XLA's own input-dilated form; of contextual attention, its definition as convolutions
of each sample with its patches as kernels and of the score matrix with the identity; of the same in
blocks of queries, of the contextual and ID-MRF losses, of the attention between levels and of that
of a map to itself, all scores at once; of PEN-Net's attention transfer, its definition as
convolutions, and in blocks all scores at once; of coherent attention, its matrix, made row by row
from all scores; of the shift layer, all cosines at once and a matrix of zeros and ones times the
features; of StyleGAN2's resampling filter, one depthwise convolution; of a depthwise convolution,
XLA's grouped one; of a spectrum, products with Fourier's matrices (a fast transform has no share of
the peak: it multiplies no matrices). Rows `fir ..., gradient` are of the filter's gradient, and
their backward pass is the second derivative, which R1 needs.
"""

import contextlib
import functools
import json
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from benchmarks import measure
from jaxinpaint.layers import conv, fourier_conv, stylegan2
from jaxinpaint.layers.aot import AOTBlock
from jaxinpaint.layers.attention import ExternalSpatialAttention
from jaxinpaint.layers.coherent_attention import coherent_attention
from jaxinpaint.layers.contextual_attention import contextual_attention
from jaxinpaint.layers.filtering import predicted_kernel_filter
from jaxinpaint.layers.level_attention import fill
from jaxinpaint.layers.region_affinity import transfer
from jaxinpaint.layers.self_attention import attend
from jaxinpaint.layers.shift import shift
from jaxinpaint.losses.contextual import contextual_loss
from jaxinpaint.losses.id_mrf import id_mrf
from jaxinpaint.systems.mesff.networks import SFI

NAMES = flags.DEFINE_list('names', [], "Only these: the first words of the rows' names.")
DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the inputs.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Calls; the fastest counts.')
JSON = flags.DEFINE_string('json', None, 'Also write the rows here.')


def patches(x, size, rate):
  """[B,H,W,C] -> [B,H,W,C,size*size], zero padding."""
  reach = size // 2 * rate
  found = lax.conv_general_dilated_patches(
    x,
    (size, size),
    (1, 1),
    [(reach, reach)] * 2,
    rhs_dilation=(rate, rate),
    dimension_numbers=conv.DIMENSIONS,
  )
  return found.reshape(*x.shape, size * size)


def plain_filter(x, kernels, size):
  taps = kernels.reshape(*x.shape, size * size)
  return jnp.einsum('bhwct,bhwct->bhwc', patches(x, size, 1), taps)


def plain_conv2d(x, kernel, *, stride=1, padding=0, dilation=1, pad_mode='zeros', form=None):
  if pad_mode == 'reflect':
    x, padding = conv.reflect_pad(x, padding), 0
  size = kernel.shape[0]
  columns = lax.conv_general_dilated_patches(
    x,
    (size, size),
    (stride, stride),
    [(padding, padding)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=conv.DIMENSIONS,
  )
  weights = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
  return jnp.einsum('bhwp,po->bhwo', columns, weights)


def plain_attention(module, params, x):
  """Transposes, dense products over the last axis, transposes back."""
  for part, axis in (('key', 1), ('value', 2)):
    x = jnp.moveaxis(x, axis, -1)
    for name in ('fc1', 'fc2'):
      layer = params[part][name]
      x = x @ layer['kernel'].astype(x.dtype) + layer['bias'].astype(x.dtype)
      x = jax.nn.relu(x) if name == 'fc1' else x
    x = jnp.moveaxis(x, -1, axis)
  return x


def plain_contextual_attention(f):
  """One sample [1,H,W,C] made of itself, every patch valid, halved by taking every second pixel."""
  _, height, width, c = f.shape
  h, w = height // 2, width // 2
  convolve = functools.partial(lax.conv_general_dilated, dimension_numbers=conv.DIMENSIONS)
  small = f[:, ::2, ::2]
  keys = patches(small, 3, 1).reshape(h * w, c, 3, 3).transpose(2, 3, 1, 0)
  keys /= jnp.maximum(jnp.sqrt(jnp.square(keys).sum((0, 1, 2))), 1e-4)
  scores = convolve(small, keys, (1, 1), 'SAME').reshape(h * w, h * w)
  identity = jnp.eye(3, dtype=f.dtype)[..., None, None]
  fuse = lambda s: convolve(s[None, ..., None], identity, (1, 1), 'SAME')[0, ..., 0]
  turned = lambda s, h, w: s.reshape(h, w, h, w).transpose(1, 0, 3, 2).reshape(h * w, h * w)
  scores = turned(fuse(turned(fuse(scores), h, w)), w, h)
  weights = jax.nn.softmax(10 * scores, -1).reshape(1, h, w, h * w)
  values = lax.conv_general_dilated_patches(
    f, (4, 4), (2, 2), [(1, 1), (1, 1)], dimension_numbers=conv.DIMENSIONS
  )
  values = values.reshape(h * w, c, 4, 4).transpose(2, 3, 0, 1)
  return conv.conv_transpose2d(weights, values, stride=2, padding=1) / 4


def plain_transfer(deep, shallow):
  """Of one sample [1,h,w,D] and [1,2h,2w,C], every patch valid."""
  _, h, w, d = deep.shape
  keys = patches(deep, 3, 1).reshape(h * w, d, 3, 3).transpose(2, 3, 1, 0)
  keys /= jnp.maximum(jnp.sqrt(jnp.square(keys).sum((0, 1, 2))), 1e-4)
  scores = lax.conv_general_dilated(
    deep, keys, (1, 1), 'SAME', dimension_numbers=conv.DIMENSIONS, precision='highest'
  )
  weights = jnp.maximum(jax.nn.softmax(10 * scores, -1), 1e-8)
  values = lax.conv_general_dilated_patches(
    shallow, (4, 4), (2, 2), [(1, 1), (1, 1)], dimension_numbers=conv.DIMENSIONS
  )
  values = values.reshape(h * w, shallow.shape[-1], 4, 4).transpose(2, 3, 0, 1)
  return conv.conv_transpose2d(weights, values, stride=2, padding=1, form='plain') / 4


def plain_coherent_attention(x, hole):
  """One sample [1,H,W,C]: all scores at once, a matrix row by row, and its product with x."""
  _, height, width, c = x.shape
  x, hole = x.reshape(-1, c), hole.reshape(-1) > 0
  unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
  scores = jnp.where(hole, -jnp.inf, x @ unit.T)
  source, similarity = scores.argmax(1), scores.max(1)

  def row(before, place):
    i, source, similarity = place
    at = lambda j: (jnp.arange(len(x)) == j).astype(x.dtype)
    to_before = before @ (x @ unit[i])
    weight = to_before / (to_before + similarity)
    filled = weight * before + (1 - weight) * at(source)
    return jnp.where(hole[i], filled, before), jnp.where(hole[i], filled, at(i))

  places = (jnp.arange(len(x)), source, similarity)
  return (lax.scan(row, jnp.zeros(len(x), x.dtype), places)[1] @ x).reshape(1, height, width, c)


def plain_shift(former, latter, hole):
  """One sample [1,h,w,C]; hole [1,h,w,1]."""
  h, w, c = former.shape[1:]
  x, y = (lax.stop_gradient(a).reshape(h * w, c).astype(jnp.float32) for a in (former, latter))
  lengths = jnp.sqrt(jnp.square(x).sum(1)[:, None] * jnp.square(y).sum(1))
  known = hole.reshape(-1) < 1
  index = jnp.where(known, x @ y.T / lengths, -jnp.inf).argmax(1)
  copies = jax.nn.one_hot(index, h * w, dtype=latter.dtype) * ~known[:, None]
  return (copies @ latter.reshape(h * w, c)).reshape(latter.shape)


def plain_upfirdn2d(x, up, down, pad, gain):
  """One depthwise convolution with the outer product of the taps, which are symmetric."""
  taps = stylegan2.fir_taps(gain=gain)
  kernel = jnp.asarray(np.outer(taps, taps), x.dtype)[..., None, None]
  return lax.conv_general_dilated(
    x,
    jnp.broadcast_to(kernel, (*kernel.shape[:3], x.shape[-1])),
    (down, down),
    [(pad[0], pad[1] + up - 1)] * 2,
    lhs_dilation=(up, up),
    dimension_numbers=conv.DIMENSIONS,
    feature_group_count=x.shape[-1],
  )


def fourier_matrices(n, count):
  """Real and imaginary part [n,count] of the orthonormal transform's first frequencies."""
  turns = 2 * np.pi * np.outer(np.arange(n), np.arange(count)) / n
  return np.cos(turns) / n**0.5, -np.sin(turns) / n**0.5


def plain_spectrum(x):
  """As fourier_conv.spectrum, of a square: the columns' transform, then the rows'."""
  side, count = x.shape[1], x.shape[2] // 2 + 1
  real, imaginary = fourier_matrices(side, count)
  columns = jnp.asarray(np.stack([real, imaginary]), jnp.float32)
  re, im = jnp.einsum('swk,bhwc->sbkhc', columns, x, precision='highest')
  real, imaginary = (jnp.asarray(m, jnp.float32) for m in fourier_matrices(side, side))
  rows = lambda m, z: jnp.einsum('hn,bkhc->bnkc', m, z, precision='highest')
  both = rows(real, re) - rows(imaginary, im), rows(real, im) + rows(imaginary, re)
  return jnp.stack(both, -1).reshape(*both[0].shape[:-1], -1)


def of_module(module, shape, dtype):
  """(ours, the same with unfolded convolutions, arguments)."""
  x = jax.random.normal(jax.random.key(0), shape, dtype)
  params = jax.jit(module.init)(jax.random.key(1), x)['params']

  def ours(params, x):
    return module.apply({'params': params}, x)

  def plain(params, x):
    with mock.patch.object(conv, 'conv2d', plain_conv2d):
      return module.apply({'params': params}, x)

  return ours, plain, (params, x)


def cases(dtype):
  """{name: (ours, plain, arguments)}, made when asked for."""
  random = lambda i, *shape: jax.random.normal(jax.random.key(i), shape, dtype)

  def filtering(side, channels, size):
    args = (random(0, 1, side, side, channels), random(1, 1, side, side, channels * size**2))
    ours = lambda x, k: predicted_kernel_filter(x, k, size)
    return ours, lambda x, k: plain_filter(x, k, size), args

  def attention():
    module = ExternalSpatialAttention(256, dtype=dtype)
    x = random(0, 1, 256, 256, 64)
    params = jax.jit(module.init)(jax.random.key(1), x)['params']
    ours = lambda p, x: module.apply({'params': p}, x)
    return ours, lambda p, x: plain_attention(module, p, x), (params, x)

  def transposed():
    args = (random(0, 1, 64, 64, 256), random(1, 4, 4, 256, 128))
    make = lambda form: lambda x, k: conv.conv_transpose2d(x, k, stride=2, padding=1, form=form)
    return make(None), make('plain'), args

  def contextual(side, block_bytes=None):
    x = random(0, 1, side, side, 128)
    valid = jnp.ones((1, side * side // 4))
    form = lambda limit: (
      lambda x, valid: contextual_attention(x, x, valid, resize='floor', block_bytes=limit)[0]
    )
    whole = form(2**40)
    if block_bytes:
      return form(block_bytes), whole, (x, valid)
    return whole, lambda x, valid: plain_contextual_attention(x), (x, valid)

  def coherent(side, gradient):
    # CSA's features of an image of 8 * side pixels, a quarter of it hole.
    x, part = random(0, 1, side, side, 512) + 1, slice(side // 4, 3 * side // 4)
    hole = jnp.zeros((1, side, side, 1)).at[:, part, part].set(1)
    ours = functools.partial(coherent_attention, gradient=gradient)
    return ours, plain_coherent_attention, (x, hole)

  def levels(side):
    # LFR's level 4, of `side` cells, fills level 3.
    deep, shallow = random(0, 1, side, side, 128), random(1, 1, 2 * side, 2 * side, 128)
    mask = jnp.zeros((1, 8 * side, 8 * side, 1)).at[:, : 3 * side, : 3 * side].set(1)
    make = lambda form: lambda x, y: fill(x, y, mask, form=form)
    return make('blocks'), make('plain'), (deep, shallow)

  def transferred(side, form=None):
    # PEN-Net's first transfer, the largest; small features, as scores are not normalised.
    args = (0.1 * random(0, 1, side, side, 64), random(1, 1, 2 * side, 2 * side, 32))
    make = lambda form: lambda x, y: transfer(x, y, form=form)
    return make(form), make('plain') if form else plain_transfer, args

  def shifting(side, form=None):
    hole = (
      jnp.zeros((1, side, side, 1)).at[:, side // 4 : -side // 4, side // 4 : -side // 4].set(1)
    )
    x, y = random(0, 1, side, side, 256), random(1, 1, side, side, 256)
    return (
      lambda x, y: shift(x, y, hole, form=form)[0],
      lambda x, y: plain_shift(x, y, hole),
      (x, y),
    )

  def spectra(side):
    # Of Big LaMa's blocks, of an image of 8 * side pixels; squared, as the gradient of what is
    # linear needs no input.
    squared = lambda f: lambda x: jnp.square(f(x))
    return squared(fourier_conv.spectrum), squared(plain_spectrum), (random(0, 1, side, side, 192),)

  def cx_loss(batch, side, channels):
    # Of the output's features only: the target's have no gradient in training.
    y = random(1, batch, side, side, channels)
    make = lambda form: lambda x, _: contextual_loss(x, y, form=form)
    return make(None), make('plain'), (random(0, batch, side, side, channels), 0.0)

  def own(batch, side):
    # Pluralistic's: its queries, its features and the encoder's, at 1/8 of the image's side.
    args = (random(0, batch, side, side, 32), random(1, batch, side, side, 256))
    make = lambda form: lambda q, x: attend(q, x, form=form)
    return make('blocks'), make('plain'), args

  def mrf_loss(side):
    # Of VGG's relu3_1; a picture of 512 pixels has 128 x 128 places, and 1 GiB of scores.
    y = random(1, 1, side, side, 256)
    make = lambda form: lambda x, _: id_mrf(x, y, form=form)
    return make(None), make('plain'), (random(0, 1, side, side, 256), 0.0)

  def resampling(side, channels, what, first_order=False):
    up, down, pad, gain = dict(
      up=(2, 1, (2, 1), 4.0), blur=(1, 1, (1, 1), 4.0), down=(1, 2, (1, 1), 1.0)
    )[what]
    taps = stylegan2.fir_taps(gain=gain)
    ours = lambda x, _: stylegan2.upfirdn2d(x, taps, up=up, down=down, pad=pad)
    plain = lambda x, _: plain_upfirdn2d(x, up, down, pad, gain)
    args = (random(0, 1, side, side, channels), random(1, channels))

    def slope(form):
      value = lambda x, w: jnp.square(form(x, w) * w).astype(jnp.float32).sum()
      return lambda x, w: jnp.square(jax.grad(value)(x, w))

    return (slope(ours), slope(plain), args) if first_order else (ours, plain, args)

  def depthwise(side, channels):
    args = (random(0, 1, side, side, channels), random(1, 3, 3, 1, channels))
    make = lambda form: lambda x, k: conv.depthwise_conv2d(x, k, form=form)
    return make(None), make('plain'), args

  block = dict(dtype=dtype)
  return {
    'filter 3x3, 256x256x3': lambda: filtering(256, 3, 3),
    'filter 3x3, 64x64x256': lambda: filtering(64, 256, 3),
    'filter 3x3, 512x512x3': lambda: filtering(512, 3, 3),
    'attention 256x256x64': attention,
    'aot 64x64x256': lambda: of_module(AOTBlock(**block), (1, 64, 64, 256), dtype),
    'sfi 64x64x256': lambda: of_module(SFI(**block), (1, 64, 64, 256), dtype),
    'transposed 4x4 s2, 64x64x256->128': transposed,
    # Features of images of 128, 256 and 512 pixels.
    'contextual 32x32x128': lambda: contextual(32),
    'contextual 64x64x128 in blocks': lambda: contextual(64, 2**20),
    'contextual 128x128x128 in blocks': lambda: contextual(128, 2**24),
    'coherent 32x32x512': lambda: coherent(32, 'reference'),
    'coherent 32x32x512, true gradient': lambda: coherent(32, 'true'),
    'coherent 64x64x512': lambda: coherent(64, 'reference'),
    'coherent 64x64x512, true gradient': lambda: coherent(64, 'true'),
    'levels 32x32x128, blocks': lambda: levels(32),
    'levels 64x64x128, blocks': lambda: levels(64),
    # Features of images of 128, 256 and 512 pixels.
    'transfer 32x32x64, 64x64x32': lambda: transferred(32),
    'transfer 64x64x64, 128x128x32': lambda: transferred(64),
    'transfer 128x128x64, blocks': lambda: transferred(128, 'blocks'),
    'own 1x32x32x256, blocks': lambda: own(1, 32),
    'own 16x32x32x256, blocks': lambda: own(16, 32),
    'own 1x64x64x256, blocks': lambda: own(1, 64),
    'shift 32x32x256': lambda: shifting(32),
    'shift 32x32x256, blocks': lambda: shifting(32, 'blocks'),
    'shift 64x64x256, at once': lambda: shifting(64, 'plain'),
    'shift 64x64x256, blocks': lambda: shifting(64, 'blocks'),
    'cx_loss 12x20x20x512': lambda: cx_loss(12, 20, 512),
    'cx_loss 1x40x40x256': lambda: cx_loss(1, 40, 256),
    'cx_loss 12x40x40x256': lambda: cx_loss(12, 40, 256),
    'id_mrf 1x64x64x256': lambda: mrf_loss(64),
    'id_mrf 1x128x128x256': lambda: mrf_loss(128),
    # All of MI-GAN at 256 and 512 pixels.
    'depthwise 3x3, 512x512x64': lambda: depthwise(512, 64),
    'depthwise 3x3, 256x256x128': lambda: depthwise(256, 128),
    'depthwise 3x3, 128x128x256': lambda: depthwise(128, 256),
    'depthwise 3x3, 64x64x512': lambda: depthwise(64, 512),
    'depthwise 3x3, 32x32x512': lambda: depthwise(32, 512),
    'depthwise 3x3, 16x16x512': lambda: depthwise(16, 512),
    'depthwise 3x3, 8x8x512': lambda: depthwise(8, 512),
    'depthwise 3x3, 4x4x512': lambda: depthwise(4, 512),
    'spectrum 32x32x192': lambda: spectra(32),
    'spectrum 64x64x192': lambda: spectra(64),
    'spectrum 128x128x192': lambda: spectra(128),
    # StyleGAN2's last layers of 256 and 512 pixels, and the upsampling of its pictures; MI-GAN's
    # features of 512 pixels.
    'fir blur, 257x257x128': lambda: resampling(257, 128, 'blur'),
    'fir blur, 257x257x128, gradient': lambda: resampling(257, 128, 'blur', first_order=True),
    'fir blur, 513x513x64': lambda: resampling(513, 64, 'blur'),
    'fir blur, 513x513x64, gradient': lambda: resampling(513, 64, 'blur', first_order=True),
    'fir up 2, 128x128x3': lambda: resampling(128, 3, 'up'),
    'fir up 2, 128x128x3, gradient': lambda: resampling(128, 3, 'up', first_order=True),
    'fir up 2, 256x256x3': lambda: resampling(256, 3, 'up'),
    'fir up 2, 256x256x3, gradient': lambda: resampling(256, 3, 'up', first_order=True),
    'fir up 2, 256x256x64': lambda: resampling(256, 64, 'up'),
    'fir down 2, 512x512x64': lambda: resampling(512, 64, 'down'),
  }


def gradient(function):
  """The gradient of the summed result with respect to every argument."""

  def summed(*a):
    return function(*a).astype(jnp.float32).sum()

  return lambda *a: jax.grad(summed, argnums=tuple(range(min(2, len(a)))), allow_int=True)(*a)


def main(argv):
  del argv
  dtype = jnp.dtype(DTYPE.value)
  peak = measure.matmul_peak(dtype)
  print(
    f'{measure.hardware()}, jax {jax.__version__}, {DTYPE.value}, matmul {peak / 1e9:.0f} GFLOP/s'
  )
  print(
    f'{"":36s} {"ours":>9s} {"of peak":>8s} {"temp":>9s} {"plain":>10s} {"temp":>9s} {"ratio":>7s}'
  )
  # Of small layers several calls in a row: starting one costs as much as it.
  timed = functools.partial(measure.measure, repeats=REPEATS.value, least_seconds=0.005)
  rows = []
  for name, make in cases(dtype).items():
    if NAMES.value and name.split()[0] not in NAMES.value:
      continue
    ours, plain, args = make()
    error = jnp.abs(ours(*args).astype(jnp.float32) - plain(*args).astype(jnp.float32)).max()
    for what, wrap in (('forward', lambda f: f), ('forward + backward', gradient)):
      a, b = (timed(wrap(f), *args) for f in (ours, plain))
      peak = measure.matmul_peak(dtype)  # beside each measurement: a shared machine's clock wanders
      share = a.useful / a.seconds / peak
      print(
        f'{name:36s} {1e3 * a.seconds:6.2f} ms {share:7.0%} {a.temporary_mib:5.0f} MiB '
        f'{1e3 * b.seconds:7.2f} ms {b.temporary_mib:5.0f} MiB {b.seconds / a.seconds:6.1f}x '
        f'{what}',
        flush=True,
      )
      rows.append(
        dict(name=name, what=what, ours_ms=1e3 * a.seconds, plain_ms=1e3 * b.seconds)
        | dict(ratio=b.seconds / a.seconds, share_of_peak=share, max_difference=float(error))
        | dict(ours_temporary_mib=a.temporary_mib, plain_temporary_mib=b.temporary_mib)
      )
  if JSON.value:
    pathlib.Path(JSON.value).write_text(json.dumps(rows, indent=2))


if __name__ == '__main__':
  with contextlib.suppress(KeyboardInterrupt):
    app.run(main)
