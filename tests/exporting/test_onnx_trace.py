"""Each kind of operation in onnxruntime gives what it gives in jax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export, lax
from onnx import checker, helper

from jaxinpaint.exporting.onnx_graph import OPSET, Graph, Value
from jaxinpaint.exporting.onnx_trace import Untranslatable, translate
from jaxinpaint.layers import conv, fourier_conv


def random(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(function, shapes, symbols=()):
  """A model with the inputs x0, x1, ...; `symbols` are (name, input, axis) of symbolic sizes."""
  arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
  graph = Graph()
  for symbol, name, axis in symbols:
    sizes = graph.add('Shape', name)
    bounds = [graph.sizes([n]) for n in (axis, axis + 1)]
    graph.bind_size(symbol, graph.add('Slice', sizes, *bounds))
  inputs = [Value(a.shape, a.shape, a.dtype, f'x{i}') for i, a in enumerate(arguments)]
  results = translate(graph, jax.make_jaxpr(lambda *x: function(*x))(*arguments), inputs)
  for i, result in enumerate(results):
    graph.give(result, f'y{i}')
  described = [graph.described(x.name, x) for x in inputs]
  given = [graph.described(f'y{i}', x) for i, x in enumerate(results)]
  proto = graph.proto('test', described, given)
  proto.initializer.extend(graph.initializers.values())
  made = helper.make_model(proto, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=8)
  checker.check_model(made, full_check=True)
  return made


def run(made, *arrays):
  session = onnxruntime.InferenceSession(made.SerializeToString())
  return session.run(None, {f'x{i}': x for i, x in enumerate(arrays)})


def check(function, *arrays, operations=()):
  made = model(function, [a.shape for a in arrays])
  for got, want in zip(
    run(made, *arrays), jax.tree.leaves(jax.jit(function)(*arrays)), strict=True
  ):
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  kinds = {node.op_type for node in made.graph.node}
  assert set(operations) <= kinds, kinds
  return made


def convolved(kernel, strides=(1, 1), pads=((0, 0), (0, 0)), lhs=(1, 1), rhs=(1, 1), groups=1):
  return lambda x: lax.conv_general_dilated(
    x,
    random(kernel, 1),
    strides,
    pads,
    lhs,
    rhs,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


@pytest.mark.parametrize(
  ('function', 'kind'),
  {
    'strided': (convolved((3, 5, 4, 6), (2, 1), ((1, 0), (2, 3))), 'Conv'),
    'dilated, in groups': (
      convolved((3, 3, 2, 6), (1, 1), ((2, 2), (4, 4)), rhs=(2, 4), groups=2),
      'Conv',
    ),
    'depthwise': (convolved((3, 3, 1, 8), groups=4, pads=((1, 1), (1, 1))), 'Conv'),
    'cropped': (convolved((3, 3, 4, 2), pads=((-1, -2), (0, -1))), 'Conv'),
    'transposed': (convolved((4, 4, 4, 6), pads=((2, 2), (2, 2)), lhs=(2, 2)), 'ConvTranspose'),
    'transposed, one more row': (
      convolved((3, 3, 4, 6), pads=((1, 2), (1, 2)), lhs=(2, 2)),
      'ConvTranspose',
    ),
    'transposed, a long border': (
      convolved((3, 3, 4, 6), pads=((1, 3), (2, 1)), lhs=(2, 2)),
      'ConvTranspose',
    ),
    'transposed, in groups': (
      convolved((4, 3, 2, 6), pads=((2, 2), (1, 1)), lhs=(2, 3), groups=2),
      'ConvTranspose',
    ),
  }.values(),
)
def test_convolutions(function, kind):
  check(function, random((2, 9, 10, 4)), operations=[kind])


def test_kernels_that_depend_on_the_input():
  plain = dict(dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  check(
    lambda x, k: lax.conv_general_dilated(x, k, (1, 1), 'SAME', **plain),
    random((1, 6, 7, 3)),
    random((3, 3, 3, 4)),
  )
  up = lambda x, k: lax.conv_general_dilated(
    x, k, (1, 1), [(2, 2)] * 2, (2, 2), feature_group_count=2, **plain
  )
  check(up, random((1, 6, 7, 4)), random((4, 4, 2, 6)), operations=['ConvTranspose'])


@pytest.mark.parametrize('size', [(8, 8), (6, 9), (7, 10)])
def test_fourier_transforms(size):
  x = random((2, *size, 3))
  check(lambda x: fourier_conv.picture(fourier_conv.spectrum(x) * 2 + 1, *size), x)
  check(lambda x: jnp.fft.ifft(jnp.fft.fft(x, axis=2) * (1 + 2j), axis=1).imag, x)
  check(lambda x: (jnp.fft.fft2(x, axes=(1, 2))[:, 1:] + 3).real, x)


def turned(total, row):
  total = total * 0.5 + row
  return total, total.sum()


LOOPS = {
  'for': lambda x: lax.fori_loop(0, 5, lambda i, y: y * 0.5 + x + i, x),
  'rows': lambda x: lax.scan(turned, x[0], x),
  'backwards': lambda x: lax.scan(turned, x[0], x, reverse=True),
  'in a loop': lambda x: lax.fori_loop(0, 2, lambda i, y: lax.scan(turned, y, x)[0], x[0]),
  'while': lambda x: lax.while_loop(lambda y: y.sum() < 100, lambda y: y + x**2, x),
  'never': lambda x: lax.while_loop(lambda y: y.sum() > 1e6, lambda y: y + 1, x),
  'map': lambda x: lax.map(lambda row: row[::-1] @ x, x),
  'which': lambda x: lax.cond(x[0, 0] > 0, lambda x: x + 1, lambda x: 2 * x, x),
  'nothing changes': lambda x: lax.fori_loop(0, 3, lambda i, y: (y[1], y[1]), (x, x + 1)),
}


@pytest.mark.parametrize('name', LOOPS)
def test_loops(name):
  for seed in (0, 1, 2):
    kind = 'If' if name == 'which' else 'Loop'
    check(LOOPS[name], random((4, 4), seed), operations=[kind])


rows = np.array([2, 0, 1])
MOVED = {
  'reflected': lambda x: conv.reflect_pad(x, 2, 'plain'),
  'edge': lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), 'edge'),
  'padded, cropped and spread': lambda x: lax.pad(
    x, jnp.float32(3), ((0, 0, 0), (1, -1, 2), (-1, 2, 1), (0, 0, 0))
  ),
  'rows': lambda x: x[:, rows],
  'rows and columns': lambda x: x[:, rows[:, None], rows],
  'rows far apart': lambda x: x[rows % 2, :, rows],
  'beyond': lambda x: x.at[:, jnp.array([1, 9])].get(mode='clip'),
  'by what it holds': lambda x: x[:, jnp.argmax(x[0, :, 0, 0])],
  'along': lambda x: jnp.take_along_axis(x, (x > 0).astype(int), 1),
  'window': lambda x: lax.dynamic_slice(
    x,
    (0, 4 + jnp.argmax(x[0, :, 0, 0]), 1, 0),
    (1, 3, 2, x.shape[-1]),  # moved inside
  ),
  'stacked': lambda x: jnp.stack([x, 2 * x], 2).reshape(2, -1),
  'tiled': lambda x: jnp.tile(x, (1, 2, 1, 3)),
  'repeated': lambda x: jnp.repeat(x, 2, 1),
  'split': lambda x: jnp.split(x, 2, 2),
  'turned': lambda x: jnp.transpose(x[:, ::-1, ::2], (3, 1, 0, 2)),
  'broadcast': lambda x: jnp.broadcast_to(x[:, :1] * 2, x.shape)[:, 1:3] + jnp.zeros((2, 1, 6, 1)),
  'broadcast, turned': lambda x: jnp.broadcast_to(x[:, :1], x.shape).transpose(1, 0, 2, 3)[::-1],
  'set': lambda x: x.at[:, 1:3, -2:].set(x[:, :2, :2] + 1),
  'set, a row': lambda x: (0 * x).at[:, 2].set(x[:, 0]),
  'of no width': lambda x: jnp.concatenate([x[:, :0], x, x[:, 5:]], 1),
  'bilinear': lambda x: conv.resize_bilinear(x, 7, 12),
}


@pytest.mark.parametrize('name', MOVED)
def test_what_is_moved(name):
  check(lambda x: MOVED[name](x), random((2, 5, 6, 4)))


def chosen(x):
  return jnp.where((x > 0) & ~(x > 1) | (x < -1), x, jnp.where(x != 0, -x, 1))


COMPUTED = {
  'means': lambda x: (x.mean((1, 2)), x.max(-1), x.min(), jnp.abs(x[0]).prod(0)),
  'any and all': lambda x: ((x > 1).any(1), (x > -2).all(-1), (x > 0).sum(1)),
  'places': lambda x: (jnp.argmax(x, 1), jnp.argmin(x, -1)),
  'chosen': chosen,
  'clipped': lambda x: jnp.clip(x, -0.5, 0.5),
  'rounded': lambda x: (jnp.round(x * 2), jnp.floor(x), jnp.ceil(x), jnp.sign(x), x % 0.7),
  'whole': lambda x: ((x * 10).astype(jnp.int32) // 3, (x * 10).astype(jnp.int32) & 6),
  'powers': lambda x: (x**3, x**2, jnp.abs(x) ** 0.3, lax.rsqrt(x**2 + 1), jnp.square(x)),
  'functions': lambda x: (jax.nn.gelu(x), jax.nn.softmax(x), jnp.tanh(x), jnp.sin(x), jnp.exp(x)),
  'activations': lambda x: (jax.nn.elu(x), jax.nn.leaky_relu(x), jax.nn.silu(x)),
  'softplus': jax.nn.softplus,
  'finite': lambda x: jnp.isfinite(1 / jnp.where(x > 0, 0, x)),
  'pools': lambda x: (
    conv.avg_pool(x),
    nn.max_pool(x, (3, 3), (2, 2), 'SAME'),
    nn.max_pool(x, (1, 1)),
  ),
  'sums': lambda x: (jnp.cumsum(x, 1), lax.cumsum(x, 1, reverse=True)),
  'sorted': lambda x: jnp.sort(x, 1),
  'products': lambda x: jnp.einsum('bijc,bkjc->bcik', x, 2 * x),
  'drawn': lambda x: x + jax.random.normal(jax.random.fold_in(jax.random.key(3), 1), x.shape),
}


@pytest.mark.parametrize('name', COMPUTED)
def test_what_is_computed(name):
  check(COMPUTED[name], random((2, 4, 6, 4)))


def test_leaky_relu_is_one_operation():
  made = check(lambda x: jax.nn.leaky_relu(x, 0.2), random((2, 6)))
  assert [node.op_type for node in made.graph.node] == ['LeakyRelu', 'Identity']
  slopes = random((6,), 1)
  check(lambda x: jax.nn.leaky_relu(x, slopes), random((2, 6)))
  check(lambda x, slope: jax.nn.leaky_relu(x, slope), random((2, 6)), random(()))


def test_what_is_constant_is_computed_before():
  made = check(lambda x: x + jnp.sin(jnp.arange(6.0))[::-1] * 2, random((2, 6)))
  assert [node.op_type for node in made.graph.node] == ['Add', 'Identity']


def test_a_large_constant_is_not_repeated_in_the_file():
  made = check(lambda x: jnp.concatenate([x, jnp.full((64, 1024), 2.0)]), random((1, 1024)))
  assert made.ByteSize() < 1000


def test_sizes_that_are_known_when_it_runs():
  def function(x):
    b, h, w, c = x.shape
    x = conv.upsample_bilinear(jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), 'reflect'))
    x = x[:, 1:-1, : 2 * w].reshape(b, 2 * h + 6, w, 2 * c).transpose(0, 2, 1, 3)
    x = x + jnp.arange(h + 3).repeat(2)[:, None] + jnp.zeros((b, w, 1, 1))
    return jnp.concatenate([x, jnp.ones((b, w, h // 2 + h % 3, 2 * c))], 2)

  made = model(
    function,
    [export.symbolic_shape('b, h, w, 3', constraints=['h >= 4', 'w >= 4'])],
    [('b', 'x0', 0), ('h', 'x0', 1), ('w', 'x0', 2)],
  )
  for shape in ((1, 4, 5, 3), (2, 7, 4, 3), (3, 8, 9, 3)):
    x = random(shape)
    np.testing.assert_allclose(run(made, x)[0], function(x), rtol=1e-5, atol=1e-5)


def test_what_is_not_known_is_named():
  for function, name in (
    (lambda x: lax.linalg.cholesky(x), 'cholesky'),
    (lax.bessel_i0e, 'bessel'),
    (lambda x: lax.reduce_precision(x, 8, 7), 'reduce_precision: to 7 bits'),
  ):
    with pytest.raises(Untranslatable, match=name):
      model(function, [(3, 3)])


def test_equal_constants_are_stored_once():
  kernel = random((200, 200))
  made = model(lambda x: (x @ kernel) @ (kernel + 0), [(1, 200)])
  assert kernel.nbytes < made.ByteSize() < 1.5 * kernel.nbytes
