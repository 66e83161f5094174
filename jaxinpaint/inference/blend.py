"""Poisson blending: a completion keeps its gradients and takes its level from its surroundings.

Perez, Gangnet, Blake: "Poisson Image Editing", SIGGRAPH 2003, https://doi.org/10.1145/1201775.882269;
the post-processing of Iizuka et al., "Globally and Locally Consistent Image Completion", 2017,
section 3.4, into an image whose hole the fast marching method has filled first (Telea, "An Image
Inpainting Technique Based on the Fast Marching Method", 2004). That filling only says how the known
pixels continue across the border of the hole. There the result equals it: the result is the
completion plus a membrane (eq. 4 of Perez et al.), the harmonic function that equals their
difference along the border.

Differs from OpenCV's seamlessClone, as GLCIC's code calls it. That solves over the box around the
mask, from 8-bit values, and uses the completion's gradients only 3 pixels or more inside the hole.
If the hole is not a rectangle, it also changes known pixels, so pasting only the hole leaves a
seam. A hole narrower than 7 pixels shows nothing of the completion. Here only the hole is solved.
"""

import cv2
import numpy as np

from jaxinpaint import arrays

KINDS = ('none', 'poisson')
RADIUS = 1  # of the fast marching method, in pixels; GLCIC's code


def poisson(image: np.ndarray, output: np.ndarray, hole: np.ndarray) -> np.ndarray:
  """Fits a completion into its hole, which may have several parts and touch the image's border.

  Args:
    image: f32[H,W,3] in [0,1]; its pixels in the hole are not read.
    output: f32[H,W,3] in [0,1], the completion; only its pixels in the hole are read.
    hole: bool[H,W].

  Returns:
    f32[H,W,3] in [0,1], equal to `image` outside the hole to the bit. If no pixel is known, there
    is nothing to fit to, and the result is `output`.
  """
  if hole.all() or not hole.any():
    return np.where(hole[..., None], output, image).astype(np.float32)
  filled = arrays.to_uint8(np.where(hole[..., None], np.float32(0), image))
  filled = cv2.inpaint(filled, hole.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA)
  wanted = filled[hole].astype(np.float64) / 255 - output[hole]
  blended = image.astype(np.float32)
  blended[hole] = np.clip(output[hole] + _membrane(hole, wanted), 0, 1)
  return blended


def _membrane(hole: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """f64[n,3] on the hole's n pixels: harmonic, tied to `wanted` across each edge to a known pixel.

  For every pixel p: sum over neighbours q in the hole of (c_p - c_q), plus (c_p - wanted_p) for
  each known neighbour, is 0. There are no neighbours outside the image (no flux).
  """
  import scipy.sparse.linalg  # takes half a second, and few pictures are blended

  n = len(wanted)
  index = np.full(hole.shape, -1)
  index[hole] = np.arange(n)
  pairs, known = [], np.zeros(n)
  for a, b in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
    both = hole[a] & hole[b]
    pairs.append(np.stack([index[a][both], index[b][both]]))
    for inside, outside in ((a, b), (b, a)):
      known[index[inside][hole[inside] & ~hole[outside]]] += 1
  first, second = np.concatenate(pairs, 1)
  edges = scipy.sparse.coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
  edges = (edges + edges.T).tocsr()
  degree = edges.sum(0) + known
  system = scipy.sparse.diags_array(degree) - edges
  solve = scipy.sparse.linalg.splu(
    system.tocsc(), permc_spec='MMD_AT_PLUS_A', diag_pivot_thresh=0, options={'SymmetricMode': True}
  )
  return solve.solve(known[:, None] * wanted)
