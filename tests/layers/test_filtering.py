import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.filtering import filter_by_taps, predicted_kernel_filter
from jaxinpaint.layers.smooth_fill import space_to_depth


@goldens.cases('jpgnet_kernelconv3', 'jpgnet_kernelconv5')
def test_filter_and_gradients(case):
  data = case.data()
  size = 3 if case.name.endswith('3') else 5
  frames, core = goldens.nhwc(data['frames']), goldens.nhwc(data['core'])
  channels = frames.shape[-1]
  every = jax.jit(lambda x, k: predicted_kernel_filter(x, k, size, rates=(1, 2, 3, 4)))
  out = np.asarray(every(frames, core))
  for i, rate in enumerate((1, 2, 3, 4)):
    part = out[..., i * channels : (i + 1) * channels]
    goldens.assert_close(goldens.nchw(part), data[f'out{rate}'], what=f'rate {rate}')
  weights = goldens.nhwc(data['cotangent'])
  loss = lambda x, k: (predicted_kernel_filter(x, k, size, rates=(2,)) * weights).sum()
  got = jax.jit(jax.grad(loss, (0, 1)))(frames, core)
  goldens.assert_close(goldens.nchw(got[0]), data['grad_frames'], what='d/dframes')
  goldens.assert_close(goldens.nchw(got[1]), data['grad_core'], what='d/dcore')


def test_identity_kernels_return_the_image():
  x = jax.random.normal(jax.random.key(0), (1, 5, 6, 2))
  kernels = jnp.zeros((1, 5, 6, 2, 9)).at[..., 4].set(1.0).reshape(1, 5, 6, 18)
  np.testing.assert_array_equal(predicted_kernel_filter(x, kernels, 3), x)


def test_patches_are_not_materialised_forward_or_backward():
  # 27 copies of the image would be 27 * 12 * 512 * 512 bytes at full size; a quarter of that here.
  x, kernels = jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, 256, 256, 27))
  patches = 27 * 4 * 256 * 256
  forward = jax.jit(lambda x, k: predicted_kernel_filter(x, k, 3)).lower(x, kernels).compile()
  assert forward.memory_analysis().temp_size_in_bytes < patches / 2


@pytest.mark.parametrize(
  'shape, size', [((1, 4, 4, 18), 3), ((1, 4, 5, 27), 3), ((1, 4, 4, 12), 2)]
)
def test_kernels_of_another_shape_are_refused(shape, size):
  with pytest.raises(ValueError, match='kernels'):
    predicted_kernel_filter(jnp.zeros((1, 4, 4, 3)), jnp.zeros(shape), size)
  with pytest.raises(ValueError, match='kernels'):
    filter_by_taps(jnp.zeros((1, 4, 4, 3)), jnp.zeros(shape), size)


@pytest.mark.parametrize('stem, rates', [(1, (1, 2)), (2, (1,))])
@pytest.mark.parametrize('form', ['plain', 'cpu'])
def test_tap_by_tap_is_the_same_filter_to_the_second_derivative(form, stem, rates):
  x, kernels, weights = (
    jax.random.normal(jax.random.key(i), (2, 6, 8, n))
    for i, n in enumerate((3, 27, 3 * len(rates)))
  )

  def by_taps(x, kernels):
    taps = jnp.split(kernels.reshape(2, 6, 8, 3, 9).swapaxes(-1, -2).reshape(2, 6, 8, 27), 9, -1)
    taps = jnp.concatenate([space_to_depth(tap, stem) for tap in taps], -1)
    return filter_by_taps(x, taps, 3, rates, stem, form)

  plain = lambda x, kernels: predicted_kernel_filter(x, kernels, 3, rates)

  def found(function):
    loss = lambda x, kernels: (jnp.tanh(function(x, kernels)) * weights).sum()
    gradients = jax.grad(loss, (0, 1))
    penalty = lambda *a: sum(jnp.square(g).sum() for g in gradients(*a))
    run = jax.jit(lambda *a: (function(*a), gradients(*a), jax.grad(penalty, (0, 1))(*a)))
    return jax.tree.leaves(run(x, kernels))

  for got, want in zip(found(by_taps), found(plain), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
