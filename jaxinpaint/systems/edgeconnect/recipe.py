"""How EdgeConnect is trained: edges, colours along true edges, colours along drawn edges.

Nazeri, Ng, Joseph, Qureshi, Ebrahimi: "EdgeConnect: Generative Image Inpainting with Adversarial
Edge Learning", ICCV Workshops 2019, https://arxiv.org/abs/1901.00212. `systems.edge_guided` holds
the phases, which JPGNet shares. They are the released code's MODEL 1, 2 and 3; its MODEL 4 is
loss.joint='both', the paper's last stage loss.joint='end_to_end'. Numbers are those of the released
example configuration.

Differs from the paper, and follows the released code:
  - weights: feature matching 10 beside an adversarial 1, style 250 (the paper's text agrees); the
    code's fallbacks without a configuration file are others (style 1, content 1, adversarial 0.01);
  - VGG's features are of raw [0, 1] images, without ImageNet's mean and deviation;
  - at inference all edges that the second generator is shown are drawn, around the hole too;
    model.composite_edges=True pastes them into the picture's own, as training does;
  - the third phase trains the second generator alone.

Differs from the released code:
  - the networks of the third phase that rest do so entirely: there, the edge generator's power
    iteration goes on;
  - loss.joint='both' keeps the two generators' gradients apart: there, the picture's loss reaches
    the edge generator as well ('end_to_end' has that, alone);
  - the power iterations of a step run in another order, and feature matching compares features of
    the same vectors u and v (see systems/edge_guided.py);
  - a batch whose masks are all empty does not divide by zero in the L1 term;
  - binary cross-entropy is taken of logits, without PyTorch's clamp of the logarithm at -100;
  - Canny's sigma is a fixed number: its random choice (SIGMA 0), no edges (-1) and edges from files
    (EDGE 2) are left out.
"""

import functools

from ml_collections import ConfigDict

from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.systems._shared import checks, edge_guided, joint_loss, modules
from jaxinpaint.systems.edgeconnect import networks as networks_lib


def default_config() -> ConfigDict:
  """The published networks, weights and lengths."""
  # Each at most, MAX_ITERS: the authors stopped when a phase's losses no longer fell.
  phases = dict(edge=2_000_000, inpainting=2_000_000, joint=2_000_000)
  sections = dict(model=edge_guided.default_model(), loss=edge_guided.default_loss(), phases=phases)
  return ConfigDict(dict(system='edgeconnect', dtype='float32') | sections)


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for fields that make no sense."""
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
  """How it is run and trained; raises ValueError for fields that make no sense."""
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
