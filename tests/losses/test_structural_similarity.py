import goldens
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.losses import reconstruction, structural_similarity


@goldens.cases('jpgnet_losses')
def test_the_filtering_loss_of_jpgnet(case):
  data = case.data()
  image, pred = (goldens.nhwc(data[k]) for k in ('image', 'pred'))

  def loss(pred):
    value = structural_similarity.ssim(pred, image)
    return reconstruction.l1(pred, image) - 0.2 * value, value

  (total, value), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(pred)
  goldens.assert_close(value, data['ssim'], what='ssim')
  goldens.assert_close(total, data['loss'], what='loss')
  scale = abs(data['grad_pred']).max()  # a mean's gradient: below the tolerance itself
  goldens.assert_close(goldens.nchw(gradient) / scale, data['grad_pred'] / scale, what='gradient')


def test_one_pixel_by_hand():
  # In a window of one pixel variances vanish, and the luminance is all there is.
  a, b = jnp.full((1, 1, 1, 1), 0.5), jnp.full((1, 1, 1, 1), 1.0)
  got = structural_similarity.ssim(a, b, size=1)
  np.testing.assert_allclose(got, (2 * 0.5 + 1e-4) / (0.25 + 1 + 1e-4), rtol=1e-6)
  assert structural_similarity.ssim(a, a, size=1) == 1
