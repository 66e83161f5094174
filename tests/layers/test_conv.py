import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxinpaint import arrays
from jaxinpaint.layers import conv, conv_cpu


def draw(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def lying(monkeypatch):
  """The form for a CPU, in which all kernels count as large and all maps as small."""
  monkeypatch.setattr(conv_cpu, 'MANY_BYTES', 0)
  monkeypatch.setattr(conv_cpu, 'FEW', 1000)
  return 'cpu'


def loop_conv_transpose(x, w, stride, padding, output_padding):
  """out[stride*i + t - padding] += x[i] * w[t], as the definition says."""
  b, h, ww, _ = x.shape
  k = w.shape[0]
  full = np.zeros(
    (b, (h - 1) * stride + k + output_padding, (ww - 1) * stride + k + output_padding, w.shape[-1])
  )
  for i in range(h):
    for j in range(ww):
      patch = np.einsum('bc,klco->bklo', x[:, i, j], w)
      full[:, i * stride : i * stride + k, j * stride : j * stride + k] += patch
  end = lambda n: n - padding
  return full[:, padding : end(full.shape[1]), padding : end(full.shape[2])]


SHAPES = [(4, 2, 1, 0), (3, 2, 1, 1), (5, 2, 2, 1), (2, 2, 0, 0), (3, 1, 1, 0), (3, 3, 0, 2)]


# 'lying': a kernel that is multiplied where it lies, as on small maps
@pytest.mark.parametrize('form', ['cpu', 'lying', 'plain'])
@pytest.mark.parametrize('shape', SHAPES)
def test_transposed_convolution_is_its_definition(shape, form, monkeypatch):
  if form == 'lying':
    form = lying(monkeypatch)
  k, stride, padding, output_padding = shape
  rng = np.random.default_rng(0)
  x, w = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((k, k, 3, 2))
  settings = dict(stride=stride, padding=padding, output_padding=output_padding, form=form)
  got = jax.jit(functools.partial(conv.conv_transpose2d, **settings))(np.float32(x), np.float32(w))
  want = loop_conv_transpose(x, w, stride, padding, output_padding)
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize('small', [False, True])
@pytest.mark.parametrize('shape', SHAPES[:3])
def test_both_transposed_forms_have_the_same_gradients(shape, small, monkeypatch):
  if small:
    lying(monkeypatch)
  k, stride, padding, output_padding = shape
  x, w = draw(2, 6, 5, 3), draw(k, k, 3, 4, seed=1)

  def loss(x, w, form):
    settings = dict(stride=stride, padding=padding, output_padding=output_padding, form=form)
    return jnp.square(conv.conv_transpose2d(x, w, **settings)).mean()

  both = lambda x, w: [jax.grad(loss, (0, 1))(x, w, form) for form in ('cpu', 'plain')]
  got, want = jax.jit(both)(x, w)
  for g, r in zip(got, want, strict=True):
    assert np.abs(r).max() > 0.01
    np.testing.assert_allclose(g, r, atol=1e-5)


@pytest.mark.parametrize('name, side', [('conv2d', 4), ('conv_transpose2d', 1)])
def test_a_kernel_that_meets_one_position_has_the_same_gradients(name, side, monkeypatch):
  lying(monkeypatch)  # as the context encoder's bottleneck
  x, w = draw(1, side, side, 3), draw(4, 4, 3, 5, seed=1)
  stride = dict(stride=1, padding=0)
  loss = lambda x, w, form: jnp.sin(getattr(conv, name)(x, w, form=form, **stride)).sum()
  both = lambda x, w: [jax.grad(loss, (0, 1))(x, w, form) for form in ('cpu', 'plain')]
  got, want = jax.jit(both)(x, w)
  for g, r in zip(got, want, strict=True):
    assert np.abs(r).max() > 0.01
    np.testing.assert_allclose(g, r, atol=1e-5)


def test_only_large_kernels_on_small_maps_are_multiplied_where_they_lie():
  large = (4, 4, 512, 512)
  assert conv_cpu._few((1, 16, 16), large) and conv_cpu._few((16, 4, 4), large)
  assert not conv_cpu._few((2, 16, 16), large)
  assert not conv_cpu._few((1, 1, 1), (4, 4, 64, 64))
  assert not conv_cpu._few(export.symbolic_shape('b, 1, 1'), large)


CONVS = [
  (3, 1, 1, 1),
  (3, 1, 1, 2),
  (3, 1, 0, 2),
  (4, 2, 1, 1),
  (5, 2, 2, 1),
  (7, 1, 0, 1),
  (1, 1, 0, 1),
]


# More and fewer channels than the input's 3; as few of them as such, and as if they were many; 0:
# kernels that are multiplied where they lie.
@pytest.mark.parametrize('features, wide', [(4, 24), (2, 24), (4, 3), (4, 0)])
@pytest.mark.parametrize('shape', CONVS)
def test_both_forms_of_convolution_agree_to_the_second_derivative(
  shape, features, wide, monkeypatch
):
  monkeypatch.setattr(conv_cpu, 'BLOCK_BYTES', 500)  # several blocks in these small maps
  monkeypatch.setattr(conv_cpu, 'PRODUCT_BYTES', 500)
  monkeypatch.setattr(conv_cpu, 'WIDE', wide)
  if wide == 0:
    lying(monkeypatch)
  value_cpu, *of_cpu = convolved('cpu', shape, features)
  value_plain, *of_plain = plainly_convolved(shape, features)
  np.testing.assert_allclose(value_cpu, value_plain, atol=1e-5)
  for g, r in zip(of_cpu, of_plain, strict=True):
    scale = np.abs(r).max()
    assert scale > 0.01
    np.testing.assert_allclose(g / scale, r / scale, atol=1e-5)


def convolved(form, shape, features):
  """A convolution's value, and the gradients of its sum and of a penalty, both at once."""
  k, stride, padding, dilation = shape
  x, w = draw(2, 12, 11, 3), np.float32(0.3) * draw(k, k, 3, features, seed=1)

  def loss(x, w):
    settings = dict(stride=stride, padding=padding, dilation=dilation, form=form)
    value, back = jax.vjp(lambda x: jnp.tanh(conv.conv2d(x, w, **settings)), x)
    penalty = jnp.square(back(jnp.ones_like(value))[0]).sum()  # as in WGAN-GP
    return value.sum() + penalty, value

  gradients, value = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, w)
  return jax.tree.map(np.asarray, (value, *gradients))


@functools.cache
def plainly_convolved(shape, features):
  return convolved('plain', shape, features)


# What a kernel is made of may be trained through its gradient: styles, by path lengths.
@pytest.mark.parametrize('shape', [(3, 1, 1, 2), (4, 2, 1, 1)])
def test_both_forms_of_a_kernels_gradient_have_the_same_gradients(shape, monkeypatch):
  monkeypatch.setattr(conv_cpu, 'BLOCK_BYTES', 500)
  k, stride, padding, dilation = shape
  x, w = draw(2, 12, 11, 3), np.float32(0.3) * draw(k, k, 3, 4, seed=1)

  def penalty(x, w, form):
    settings = dict(stride=stride, padding=padding, dilation=dilation, form=form)
    value = lambda w: jnp.tanh(conv.conv2d(x, w, **settings)).sum()
    return jnp.square(jax.grad(value)(w)).sum()

  both = lambda x, w: [jax.grad(penalty, (0, 1))(x, w, form) for form in ('cpu', 'plain')]
  got, want = jax.jit(both)(x, w)
  for g, r in zip(got, want, strict=True):
    scale = np.abs(r).max()
    assert scale > 1
    np.testing.assert_allclose(g / scale, r / scale, atol=1e-5)


# Maps in one piece, one by one, and row by row
@pytest.mark.parametrize('k, block_bytes', [(3, 2**16), (3, 1000), (3, 300), (5, 300)])
def test_both_forms_of_depthwise_convolution_agree_to_the_second_derivative(
  k, block_bytes, monkeypatch
):
  monkeypatch.setattr(conv_cpu, 'DEPTHWISE_BYTES', block_bytes)
  x, w = draw(2, 7, 6, 5), np.float32(0.3) * draw(k, k, 1, 5, seed=1)
  value = lambda form, x, w: jnp.tanh(conv.depthwise_conv2d(x, w, form=form))

  def penalty(form, x, w):
    of_input, of_kernel = jax.grad(lambda *a: value(form, *a).sum(), (0, 1))(x, w)
    return jnp.square(of_input).sum() + jnp.square(of_kernel).sum()

  found = lambda form, x, w: (value(form, x, w), jax.grad(penalty, (1, 2))(form, x, w))
  got, want = jax.jit(lambda x, w: [found(form, x, w) for form in ('cpu', 'plain')])(x, w)
  assert got[0].shape == x.shape and np.abs(want[1][1]).max() > 0.1
  for g, r in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(g, r, rtol=1e-4, atol=1e-4)


def test_weight_gradient_blocks_cover_the_batch():
  assert conv_cpu._block(8, 16, 100, 4000) == (2, 16)
  assert conv_cpu._block(8, 16, 100, 900) == (1, 8)
  assert conv_cpu._block(3, 16, 100, 10) == (1, 1)
  assert conv_cpu._block(3, 16, 100, 10**6) == (3, 16)


def test_conv_pads_mirrors_and_dilates():
  x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  kernel = np.zeros((3, 3, 1, 1), np.float32)
  kernel[0, 0] = 1  # reads the pixel up and left
  conv2d = lambda *a, **k: np.asarray(jax.jit(functools.partial(conv.conv2d, **k))(*a))
  plain = conv2d(x, kernel, padding=1)[0, ..., 0]
  assert plain[0, 0] == 0 and plain[1, 1] == x[0, 0, 0, 0] and plain[3, 3] == x[0, 2, 2, 0]
  mirrored = conv2d(x, kernel, padding=2, dilation=2, pad_mode='reflect')[0, ..., 0]
  assert mirrored[0, 0] == x[0, 2, 2, 0] and mirrored[3, 3] == x[0, 1, 1, 0]
  halved = conv2d(x, np.ones((4, 4, 1, 1), np.float32), stride=2, padding=1)[0, ..., 0]
  assert halved.shape == (2, 2) and halved[0, 0] == x[0, :3, :3].sum()


@pytest.mark.parametrize('side, padding', [(9, 2), (9, 4), (9, 5), (9, 8), (3, 1), (2, 1)])
def test_both_forms_of_mirroring_have_the_same_gradient(side, padding):
  x = draw(2, side, side + 1, 3)
  loss = lambda x, form: jnp.sin(3 * conv.reflect_pad(x, padding, form)).sum()
  got, want = jax.jit(lambda x: [jax.grad(loss)(x, form) for form in ('cpu', 'plain')])(x)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_map_too_small_to_mirror_is_refused():
  with pytest.raises(ValueError, match='8 x 9 cannot be mirrored by 8'):
    conv.reflect_pad(jnp.zeros((1, 8, 9, 1)), 8)


def test_parameters_stay_float32_under_bfloat16():
  for layer in (conv.Conv(4, 3, padding=1, dtype=jnp.bfloat16), conv.ConvTranspose(4)):
    x = jnp.ones((1, 4, 4, 2))
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert y.dtype == layer.dtype


def test_default_initialisation_is_narrow_normal_with_zero_bias():
  init = jax.jit(conv.Conv(64, 3).init)
  params = init(jax.random.key(0), np.zeros((1, 4, 4, 64), np.float32))['params']
  assert abs(float(params['kernel'].std()) - 0.02) < 5e-4 and not params['bias'].any()


def test_upsampling_and_pooling():
  x = np.float32([[0, 4]]).reshape(1, 1, 2, 1)
  doubled = jax.jit(conv.upsample_bilinear)(x)
  np.testing.assert_allclose(np.asarray(doubled)[0, :, :, 0], [[0, 1, 3, 4]] * 2)
  x = draw(2, 6, 8, 3)
  for size in ((12, 16), (3, 4), (7, 9)):
    resize = lambda f, size=size: jax.jit(f, static_argnums=(1, 2))(x, *size)
    got, want = resize(conv.resize_bilinear), resize(arrays.resize_bilinear)
    np.testing.assert_allclose(got, want, atol=1e-6)
  x = np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
  np.testing.assert_allclose(np.asarray(jax.jit(conv.avg_pool)(x))[0, 0, :, 0], [2.5, 4.5])


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', [(1, 1), (2, 3), (9, 12)])
def test_doubling_is_the_interpolation(shape, align_corners):
  x = draw(2, *shape, 3)
  double = jax.jit(functools.partial(conv.upsample_bilinear, align_corners=align_corners))
  resize = functools.partial(arrays.resize_bilinear, align_corners=align_corners)
  weights = draw(2, 2 * shape[0], 2 * shape[1], 3, seed=1)

  def with_gradient(f, x):
    y, pull = jax.vjp(f, x)
    return y, pull(weights)[0]

  @jax.jit
  def both(x):
    functions = double, lambda x: resize(x, 2 * shape[0], 2 * shape[1])
    return [with_gradient(f, x) for f in functions]

  (doubled, of_doubled), (want, of_resize) = both(x)
  np.testing.assert_allclose(doubled, want, atol=1e-5)
  np.testing.assert_allclose(of_doubled, of_resize, atol=1e-5)
  sizes = jax.ShapeDtypeStruct(export.symbolic_shape('b, h, w, 3'), np.float32)
  np.testing.assert_allclose(export.export(double)(sizes).call(x), want, atol=1e-5)
  half = double(np.asarray(x, jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(half, np.float32), want, atol=0.05)
