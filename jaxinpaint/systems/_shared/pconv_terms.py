"""The five terms of PConv, which RFR took over.

Liu, Reda, Shih, Wang, Tao, Catanzaro: "Image Inpainting for Irregular Holes Using Partial
Convolutions", ECCV 2018, section 3.3. config.loss has their weights (`WEIGHTS`), the fields of
vgg16_terms, and `tv_region`, which pixels the total variation is of:

  'picture'  the whole composite
  'hole'     pairs of pixels within one pixel of the hole, the PConv paper's region
  'masked'   the whole composite with zeros at known pixels, as RFR's code has it
"""

import jax
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import perceptual, reconstruction, regularisers
from jaxinpaint.systems._shared import checks, vgg16_terms

WEIGHTS = ('valid', 'hole', 'perceptual', 'style', 'tv')
TV_REGIONS = ('picture', 'hole', 'masked')


def check(loss: ConfigDict) -> None:
  """Raises ValueError for weights, layers or a region that `generator_terms` cannot use."""
  checks.weights(loss, WEIGHTS)
  checks.one_of('loss.tv_region', loss.tv_region, TV_REGIONS)
  vgg16_terms.check(loss)


def generator_terms(
  loss: ConfigDict,
  out: jax.Array,
  image: jax.Array,
  mask: jax.Array,
  features: vgg16_terms.Features,
) -> dict[str, jax.Array]:
  """{term: its value with its weight}; only terms with a weight are computed.

  Args:
    loss: config.loss.
    out: f32[B,H,W,3], the network's output before it is clipped, in the range that VGG gets.
    image: f32[B,H,W,3], the whole picture, likewise.
    mask: f32[B,H,W,1], 1 = hole.
    features: of images like these.
  """
  composite = arrays.compose(out, image, mask)
  terms = {}
  if loss.valid:
    terms['valid'] = loss.valid * reconstruction.masked_l1(out, image, 1 - mask)
  if loss.hole:
    terms['hole'] = loss.hole * reconstruction.masked_l1(out, image, mask)
  if loss.perceptual or loss.style:
    of_out, of_composite, wanted = (features(x) for x in (out, composite, image))
    if loss.perceptual:
      both = (perceptual.perceptual(x, wanted) for x in (of_out, of_composite))
      terms['perceptual'] = loss.perceptual * sum(both)
    if loss.style:
      terms['style_out'] = loss.style * perceptual.style(of_out, wanted)
      terms['style_composite'] = loss.style * perceptual.style(of_composite, wanted)
  if loss.tv:
    hole = mask if loss.tv_region == 'hole' else None
    seen = composite * mask if loss.tv_region == 'masked' else composite
    terms['tv'] = loss.tv * regularisers.total_variation(seen, hole)
  return terms
