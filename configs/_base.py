"""What experiment files share: data sets, optimizers, and the variants after a config's colon."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxinpaint import systems
from jaxinpaint.metrics import protocols
from jaxinpaint.training import config as config_lib

VARIANTS = ('quicktest',)


def base(system: str) -> ConfigDict:
  """The system's published networks and losses with the loop's defaults."""
  return config_lib.base(system)


def fine_tuning(
  stored: ConfigDict, init_from: str, learning_rate: float, **others: Any
) -> ConfigDict:
  """`base` with the system, networks and losses of weights, and a run that starts from them.

  Of a system that trains in phases only the last one is left. Every optimizer is Adam.

  Args:
    stored: the config of the weights.
    init_from: the weights: what `trained.load` takes.
    learning_rate: of the optimizers.
    **others: what else they have, see `adam`.
  """
  config = base(stored.system)
  config.init_from = init_from
  with config.unlocked():
    config.model, config.loss = stored.model, stored.loss
    recipe = systems.make_recipe(config)
    for phase in config.get('phases', {}):
      if phase != recipe.phases[-1].name:
        config.phases[phase] = 0
    for name in systems.make_recipe(config).optimizers:
      config.optimizers[name] = adam(learning_rate, b1=0.9, b2=0.99, **others)
  return config


def finish(config: ConfigDict, variant: str = '', own: Sequence[str] = ()) -> ConfigDict:
  """Applies the variant named after the config's colon.

  `--config places2_mesff:quicktest` runs the experiment in miniature: a few steps of
  every phase on the embedded sample photographs, on a CPU, in about a minute.

  Args:
    config: of the experiment.
    variant: '', one of `VARIANTS`, or one of ...
    own: ... the experiment's own, which is applied already.

  Raises:
    ValueError: there is no such variant; lists those there are.
  """
  if variant == 'quicktest':
    return config_lib.quicktest(config)
  if variant and variant not in own:
    known = ', '.join((*own, *VARIANTS))
    raise ValueError(f'unknown config variant {variant!r}; there are: {known}')
  return config


def measured_by(config: ConfigDict, protocol: str, best: str = 'psnr') -> None:
  """The evaluation of a paper: its protocol with the protocol's own holes and count of images.

  Args:
    config: is changed.
    protocol: its id.
    best: the metric of the protocol, larger being better, that chooses the best checkpoint.
  """
  chosen = protocols.get(protocol)
  config.evaluation.update(dict(protocol=protocol, masks=chosen.masks, count=chosen.count))
  config.checkpoint.best = best


def places2(config: ConfigDict) -> None:
  """Places365-Standard at 256 px (Zhou et al., 2018); tfds prepares it without TensorFlow."""
  config.data.source = 'tfds:places365_small'
  config.data.split = 'train'
  config.data.eval_split = 'validation'


def places2_large(config: ConfigDict) -> None:
  """Places365-Standard at full size, as a folder: 32 crops of 512 px, as MAT's authors train."""
  config.data.source = 'folder:~/data/places365'
  config.data.split = 'train'
  config.data.eval_split = 'val'
  config.data.size = 512
  config.data.batch_size = 32
  config.data.crop = 'random'  # O: ours, here and below
  config.data.flip = True
  config.data.workers = 4  # O


def celeba(config: ConfigDict, crop: str = 'center') -> None:
  """CelebA, aligned 178 x 218 faces (Liu et al., 2015): centre square, resized."""
  config.data.source = 'tfds:celeb_a'
  config.data.split = 'train'
  config.data.eval_split = 'test'
  config.data.crop = crop


def adam(learning_rate: float, b1: float, b2: float, **others: Any) -> ConfigDict:
  """An Adam entry of `config.optimizers`."""
  entry = dict(name='adam', learning_rate=learning_rate, b1=b1, b2=b2, eps=1e-8)
  entry |= dict(schedule='constant', schedule_args={}, clip_norm=0.0)
  return ConfigDict(entry | others)


def lazily_regularised_adam(
  learning_rate: float, b1: float, b2: float, every: int, **others: Any
) -> ConfigDict:
  """An Adam entry for a network whose regulariser is a step of its own, after `every` others.

  Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, appendix B:
  with c = every / (every + 1) the rate is multiplied by c, and betas are raised to the power of c.
  """
  c = every / (every + 1)
  return adam(c * learning_rate, b1**c, b2**c, **others)


def adadelta(learning_rate: float, rho: float, eps: float, **others: Any) -> ConfigDict:
  """An Adadelta entry of `config.optimizers`; optax's and PyTorch's take the same steps."""
  entry = dict(name='adadelta', learning_rate=learning_rate, rho=rho, eps=eps)
  entry |= dict(schedule='constant', schedule_args={}, clip_norm=0.0)
  return ConfigDict(entry | others)
