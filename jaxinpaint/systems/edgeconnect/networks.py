"""EdgeConnect: edges first, colours second.

Nazeri, Ng, Joseph, Qureshi, Ebrahimi: "EdgeConnect: Generative Image Inpainting with Adversarial
Edge Learning", ICCV Workshops 2019, https://arxiv.org/abs/1901.00212. JPGNet uses the same
generators, so they are in `layers.edge_generators`; MISF uses the same discriminators, so they are
in `layers.patch_discriminator`. This module lists EdgeConnect's networks.

Differs from the reference code: the discriminators return logits, without a final sigmoid.
"""

from jaxinpaint.layers.edge_generators import (
  MIN_SIDE,
  MULTIPLE,
  EdgeGenerator,
  InpaintGenerator,
  complete_edges,
  gray,
)
from jaxinpaint.layers.patch_discriminator import PatchDiscriminator

__all__ = [
  'MIN_SIDE',
  'MULTIPLE',
  'EdgeGenerator',
  'InpaintGenerator',
  'PatchDiscriminator',
  'complete_edges',
  'gray',
]
