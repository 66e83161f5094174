"""The ID-MRF loss: each feature of the target wants one of the output's for itself.

Wang, Tao, Qi, Shen, Jia: "Image Inpainting via Generative Multi-column Convolutional Neural
Networks", NeurIPS 2018, https://arxiv.org/abs/1810.08771, section 3.2 (implicit diversified Markov
random fields). Plain nearest neighbours let many output patches copy the same smooth patch. Here
similarities are relative: each output feature divides itself over the target's features, and each
target feature takes the largest part it is given. A layer's value for one image is

  -log(mean_s max_v share(v, s)),   sum_s share(v, s) = 1

with v over the output's places and s over the target's.

As in the authors' code, the shares are those of the contextual loss (losses/contextual.py, section
3 there) with two changes: at each place the mean over the target's channels is subtracted, and
images are summed, not averaged. So is the memory: an image of N places has N x N scores; where
these are many, blocks of them are held at a time and computed again for the gradient.

Differs from the paper: similarity is exp((1 - d / (min d + eps)) / h) of cosine distances d, the
code's; the text divides cosines by the largest cosine with another patch.
Differs from the code: a feature of length zero stays zero; in the code it is NaN.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxinpaint.losses import contextual
from jaxinpaint.losses.perceptual import Features


def id_mrf(
  pred: jax.Array,
  target: jax.Array,
  *,
  h: float = 0.5,
  eps: float = 1e-5,
  form: contextual.Form | None = None,
) -> jax.Array:
  """f32[]: the SUM over the batch of one layer's loss; no gradient flows into `target`.

  Args:
    pred: [B,h,w,C], the output's features.
    target: [B,h,w,C], of the true images.
    h: the bandwidth.
    eps: added to the smallest distance.
    form: 'plain' or 'blocks'; None: chosen by the number of scores.

  Raises:
    ValueError: as `contextual.similarity`.
  """
  target = jax.lax.stop_gradient(target)
  found = contextual.similarity(pred, target, h=h, eps=eps, form=form, centre='place')
  return -jnp.log(found).sum()


def id_mrf_loss(
  pred: Features, target: Features, style: Sequence[str], content: Sequence[str]
) -> jax.Array:
  """f32[]: `id_mrf` of the layers `style` and of the layers `content`, added up.

  A layer in both counts twice, as published.

  Args:
    pred: {layer: [B,h,w,C]} of the output.
    target: the same of the true images.
    style: layers.
    content: layers.
  """
  layers = (*style, *content)
  values = {name: id_mrf(pred[name], target[name]) for name in dict.fromkeys(layers)}
  return jnp.asarray(sum(values[name] for name in layers))
