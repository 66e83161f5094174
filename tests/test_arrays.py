import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxinpaint import arrays


def test_compose_keeps_known_pixels_to_the_bit_even_beside_nan():
  image = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
  mask = np.zeros((2, 4, 4, 1), np.float32)
  mask[:, 1:3, 1:3] = 1
  pred = np.full_like(image, np.nan)
  pred[:, 1:3, 1:3] = 0.25
  out = np.asarray(arrays.compose(pred, image, mask))
  np.testing.assert_array_equal(out[:, 0], image[:, 0])
  np.testing.assert_array_equal(out[:, 1:3, 1:3], 0.25)


def test_uint8_round_trip_and_rounding():
  values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
  back = arrays.to_uint8(np.asarray(arrays.to_float(jnp.asarray(values))))
  np.testing.assert_array_equal(back, values)
  assert arrays.to_uint8(np.array([-1.0, 0.4999 / 255, 0.5001 / 255, 2.0])).tolist() == [
    0,
    0,
    1,
    255,
  ]


@pytest.mark.parametrize(
  ('size', 'multiple', 'least', 'want'),
  [
    ((5, 8), 4, 0, (8, 8)),
    ((5, 8), 4, 20, (20, 20)),
    ((8, 8), 4, 0, (8, 8)),
    ((1, 33), 8, 36, (40, 40)),
  ],
)
def test_padding_at_the_bottom_and_right(size, multiple, least, want):
  x = np.arange(size[0] * size[1], dtype=np.float32).reshape(1, *size, 1)
  padded = arrays.pad_to_multiple(x, multiple, least)
  assert padded.shape[1:3] == want
  np.testing.assert_array_equal(padded[:, : size[0], : size[1]], x)
  # Reflected about the last pixel, back and forth where one side does not suffice.
  at = lambda n, side: abs((n + side - 1) % max(2 * side - 2, 1) - side + 1) if side > 1 else 0
  rows, columns = ([at(n, s) for n in range(w)] for w, s in zip(want, size, strict=True))
  np.testing.assert_array_equal(padded[0], x[0][rows][:, columns])


def test_a_size_that_a_network_cannot_take_is_named():
  with pytest.raises(ValueError, match=r'image height 250 must be a multiple of 8'):
    arrays.check_multiple(250, 256, 8)
  with pytest.raises(ValueError, match=r'image width 32 must be .* at least 36'):
    arrays.check_multiple(64, 32, 4, 36)


def test_bilinear_by_hand():
  x = jnp.array([0.0, 1.0, 4.0]).reshape(1, 3, 1, 1)
  half = arrays.resize_bilinear(x, 6, 1)[0, :, 0, 0]
  np.testing.assert_allclose(half, [0, 0.25, 0.75, 1.75, 3.25, 4.0], atol=1e-6)
  corners = arrays.resize_bilinear(x, 5, 1, align_corners=True)[0, :, 0, 0]
  np.testing.assert_allclose(corners, [0, 0.5, 1.0, 2.5, 4.0], atol=1e-6)


def test_nearest_by_floor():
  x = jnp.arange(5.0).reshape(1, 1, 5, 1)
  assert arrays.resize_nearest(x, 1, 3)[0, 0, :, 0].tolist() == [0, 1, 3]
  assert arrays.resize_nearest(x, 1, 10)[0, 0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize('align_corners', [False, True])
def test_resizing_in_a_program_for_any_size(align_corners):
  def both(x, like):
    size = like.shape[1:3]
    smooth = arrays.resize_bilinear(x, *size, align_corners=align_corners)
    return smooth, arrays.resize_nearest(x, *size)

  scope = export.SymbolicScope()
  shapes = [export.symbolic_shape(text, scope=scope) for text in ('b, h, w, 3', 'b, n, m, 3')]
  specs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
  program = export.export(jax.jit(both))(*specs)
  for (h, w), (n, m) in (((7, 300), (19, 512)), ((64, 9), (31, 4)), ((1, 2), (1, 1023))):
    x = np.random.default_rng(h).random((2, h, w, 3), np.float32)
    like = np.zeros((2, n, m, 3), np.float32)
    for got, want in zip(program.call(x, like), both(x, like), strict=True):
      np.testing.assert_allclose(got, want, atol=2e-6)
