"""EdgeConnect: edges first, colours second.

Nazeri, Ng, Joseph, Qureshi, Ebrahimi: "EdgeConnect: Generative Image Inpainting with Adversarial
Edge Learning", ICCV Workshops 2019, https://arxiv.org/abs/1901.00212. The networks are blocks that
JPGNet has too, so they live in `layers.edge_generators`, and the discriminators, which MISF has, in
`layers.patch_discriminator`: this is the list of what EdgeConnect is made of.

Differs from the reference code: the discriminators return logits, without the sigmoid at their end.
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
