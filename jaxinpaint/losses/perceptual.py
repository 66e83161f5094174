"""Perceptual and style losses over the features of a frozen network.

Both take what `features.vgg.apply` returns, {layer: [B,h,w,c]}, for the prediction and for the
target. The system chooses the images (whole or masked, normalised or not), the layers and the
weight. Everything is float32 inside. No gradient flows into the target's features.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxinpaint.losses.reconstruction import absolute_difference

Features = Mapping[str, jax.Array]


def gram_matrix(features: jax.Array) -> jax.Array:
  """Inner products of channels over all positions, divided by C*H*W.

  Gatys et al., "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, eq. 3, with
  the normalisation of Johnson et al., ECCV 2016, eq. 3.

  Args:
    features: [B,H,W,C].

  Returns:
    f32[B,C,C].

  >>> gram_matrix(jnp.ones((1, 4, 4, 2))).tolist()
  [[[0.5, 0.5], [0.5, 0.5]]]
  """
  b, h, w, c = features.shape
  x = features.astype(jnp.float32).reshape(b, h * w, c)
  return jnp.einsum('bnc,bnd->bcd', x, x, precision='highest') / (c * h * w)


def perceptual(
  pred: Features,
  target: Features,
  weights: Mapping[str, float] | None = None,
  *,
  squared: bool = False,
) -> jax.Array:
  """Sum over layers of the mean absolute difference of features.

  The mean runs over samples, positions and channels of a layer.

  Args:
    pred: {layer: [B,h,w,c]} of the prediction.
    target: the same layers of the target.
    weights: {layer: its weight}; None: 1 each.
    squared: mean squared differences instead.

  Raises:
    ValueError: the two, or the weights, name different layers, or none.
  """
  _check_layers(pred, target, weights)
  return sum(
    (1.0 if weights is None else weights[name])
    * _mean_difference(pred[name], target[name], squared)
    for name in pred
  )


def style(
  pred: Features,
  target: Features,
  weights: Mapping[str, float] | None = None,
  *,
  squared: bool = False,
) -> jax.Array:
  """Sum over layers of the mean absolute difference of Gram matrices; arguments as `perceptual`.

  The mean runs over samples and the C*C entries of a layer's `gram_matrix`.

  Raises:
    ValueError: as `perceptual`.
  """
  _check_layers(pred, target, weights)
  return sum(
    (1.0 if weights is None else weights[name])
    * _mean_difference(gram_matrix(pred[name]), gram_matrix(target[name]), squared)
    for name in pred
  )


def _mean_difference(pred: jax.Array, target: jax.Array, squared: bool) -> jax.Array:
  target = jax.lax.stop_gradient(target)
  if squared:
    return jnp.square(pred.astype(jnp.float32) - target.astype(jnp.float32)).mean()
  return absolute_difference(pred, target).mean()


def _check_layers(pred: Features, target: Features, weights: Mapping[str, float] | None) -> None:
  named = [set(pred), set(target)] + ([] if weights is None else [set(weights)])
  if not pred or any(names != named[0] for names in named):
    listed = ' and '.join(str(sorted(names)) for names in named)
    raise ValueError(f'features (and weights) must name the same layers, at least one: {listed}')
