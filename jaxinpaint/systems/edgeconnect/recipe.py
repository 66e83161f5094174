"""How EdgeConnect is trained: edges, colours along true edges, colours along drawn edges.

Nazeri, Ng, Joseph, Qureshi, Ebrahimi: "EdgeConnect: Generative Image Inpainting with Adversarial
Edge Learning", ICCV Workshops 2019, https://arxiv.org/abs/1901.00212. `_shared.edge_guided` has the
phases, which JPGNet shares. They are the released code's MODEL 1, 2 and 3. Its MODEL 4 is
loss.joint='both'; the paper's last stage is loss.joint='end_to_end'. Numbers are those of the
released example configuration.

Differs from the paper, and follows the released code:
  - weights: feature matching 10 with adversarial 1, style 250 (the paper's text agrees). Without a
    configuration file the code uses others (style 1, content 1, adversarial 0.01);
  - VGG's features are of raw [0, 1] images, without ImageNet's mean and deviation;
  - at inference the second generator gets only drawn edges, also around the hole;
    model.composite_edges=True pastes them into the picture's own edges, as in training;
  - the third phase trains only the second generator.

Differs from the released code:
  - networks that the third phase does not train do not change at all; in the code the edge
    generator's power iteration continues;
  - loss.joint='both' keeps the two generators' gradients separate; in the code the picture's loss
    also reaches the edge generator ('end_to_end' does only that);
  - the power iterations of a step run in another order, and feature matching compares features of
    the same vectors u and v (see systems/_shared/edge_guided.py);
  - the L1 term divides by the share of hole in the batch, but by no less than 1 %, and not at all
    if there is no hole, where the code divides by zero;
  - binary cross-entropy is computed from logits, without PyTorch's clamp of the logarithm at -100;
  - Canny's sigma is a fixed number; a random sigma (SIGMA 0), no edges (-1) and edges from files
    (EDGE 2) are left out.
"""

import functools

from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import checks, edge_guided, joint_loss, modules
from jaxinpaint.systems.edgeconnect import networks as networks_lib


def default_config() -> ConfigDict:
  """The published networks, weights and lengths."""
  # MAX_ITERS, an upper limit for each phase: the authors stopped when its losses no longer fell.
  phases = dict(edge=2_000_000, inpainting=2_000_000, joint=2_000_000)
  sections = dict(model=edge_guided.default_model(), loss=edge_guided.default_loss(), phases=phases)
  return ConfigDict(dict(system='edgeconnect', dtype='float32') | sections)


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  checks.same_fields('model', config.model, edge_guided.default_model())
  edge_guided.check_model(config)
  model = config.model
  networks = edge_guided.make_generators(model, modules.DTYPES[config.dtype])
  paint = edge_guided.paint(networks, composite_edges=model.composite_edges)

  def output(variables, constants, image, mask, rng, *, canny):
    return paint(variables, image, mask, canny)[0]

  def pictures(variables, constants, image, mask, rng, *, canny):
    return {'edges': paint(variables, image, mask, canny)[1]}

  return Inference(
    networks=tuple(networks),
    init=modules.initializer(networks, functools.partial(edge_guided.arguments, networks)),
    output=output,
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.MIN_SIDE,
    inputs=edge_guided.inputs(model),
    pictures=pictures,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running, loss, dtype = inference(config), config.loss, modules.DTYPES[config.dtype]
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], default_config()[section])
  edge_guided.check_training(loss, config.phases)
  networks = {
    **edge_guided.make_generators(config.model, dtype),
    **edge_guided.make_discriminators(loss, dtype),
  }
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, functools.partial(edge_guided.arguments, networks)),
    phases=edge_guided.make_phases(networks, loss, config.phases, dtype),
    load_constants=functools.partial(joint_loss.load_constants, loss),
  )


quicktest = edge_guided.quicktest
