"""How GMCNN is trained: first reconstruction alone, then with ID-MRF and two critics.

Wang, Tao, Qi, Shen, Jia: "Image Inpainting via Generative Multi-column Convolutional Neural
Networks", NeurIPS 2018, sections 3.2 to 3.5; networks.py has the networks. Marks: P, the paper; P?,
said to be the paper's and not checked against its text; C, the authors' PyTorch code; O, ours.

  reconstruction   reconstruction * L1 of the hole by confidence + autoencoder * L1 of known pixels
  adversarial      the same + id_mrf * ID-MRF + adversarial * (-mean D_local - mean D_global);
                   before each such step `critic_steps` of both critics on the same batch

All of this is for images in [-1, 1]; ID-MRF compares VGG's features of completed and true images.
It and the local critic see a square of `model.local_size` around the middle of the hole. For holes
larger than that (strokes) make local_size as large as the images, as the code does.

The critics are `model.critic`:
  'wgan_gp'  the paper's: a Wasserstein critic with gradient penalty. The slope counts each pixel by
             its confidence (`gp_confidence`, P?), so known pixels do not count;
  'hinge'    those of the PyTorch code: spectral norm and a hinge, no penalty.
The default is the first one, which is also what the authors' TensorFlow code trains with. The
generator, and so the published weights, are the same with both.

Differs from the paper:
  - `autoencoder`, the L1 of known pixels, and the weight of the reconstruction are the code's;
  - confidence: the code's window is flat (losses.reconstruction.confidence_mask); the paper's
    Gaussian is `confidence_sigma=40` (P?);
  - VGG's layers for ID-MRF are those that the code takes; see `default_config`.
Differs from the reference code:
  - `critic`, see above; both critics are stepped together;
  - each sample has its own hole; the code draws one rectangle for a batch;
  - the second phase goes on with the optimizer's averages; the code starts another run;
  - real and completed images are judged in one pass, so with spectral norm a critic's step makes
    one power iteration, not two;
  - the errors' means over a hole, or over known pixels, that are not there are 0, not NaN.

As in the code, ID-MRF is the sum over a batch, so its weight belongs to a batch of 16. Logged terms
include their weights, so they sum to 'total'.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.features import vgg
from jaxinpaint.losses import adversarial, id_mrf, reconstruction
from jaxinpaint.recipe import Constants, Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules, two_critics, windows
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.gmcnn import networks as networks_lib

KINDS = {'wgan_gp': adversarial.wasserstein, 'hinge': adversarial.hinge}
WEIGHTS = ('reconstruction', 'autoencoder', 'id_mrf', 'adversarial')


def default_config() -> ConfigDict:
  """The published settings."""
  model = dict(
    width=32,  # C
    dilations=networks_lib.DILATIONS,  # C
    critic='wgan_gp',  # P; C: 'hinge'
    critic_width=64,  # C
    image_size=256,  # C, P?: that the critics are built for ...
    local_size=128,  # C, P?: ... and of the square around the hole
  )
  loss = dict(
    reconstruction=1.4,  # C
    autoencoder=1.2,  # C; P? has no such term
    id_mrf=0.05,  # C, P?
    adversarial=0.001,  # C, P?
    gradient_penalty=10.0,  # C (where it is not used); only with critic='wgan_gp'
    gp_confidence=True,  # P?; False: the penalty's slope is that of all pixels
    critic_steps=5,  # C
    confidence_sigma=reconstruction.CONFIDENCE_SIGMA,  # C, in pixels: a flat window; P?: 40
    confidence_size=65,  # C, at any size of the images
    confidence_iterations=7,  # C
    # By VGG's own names. C calls them relu3_2 and relu4_2, but counts convolutions and activations
    # alike, and so takes these. P?: conv3_2 and conv4_2.
    style_layers=('relu3_1', 'relu4_1'),
    content_layers=('relu4_1',),  # counts twice, as published
    vgg_depth=19,  # C, P?; O: 16 has these layers too
    vgg_file='',  # '': torchvision's
  )
  phases = dict(reconstruction=70_000, adversarial=-1)  # C: 40 epochs, of 28,000 faces in 16s
  return ConfigDict(dict(system='gmcnn', dtype='float32', model=model, loss=loss, phases=phases))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, shortens the phases and removes the term that needs VGG; in place."""
  narrow = dict(width=4, dilations=(1, 1, 2, 2), critic_width=4, image_size=64, local_size=32)
  config.model.update(narrow)
  config.loss.update(dict(id_mrf=0.0, critic_steps=2))
  config.phases.update(dict(reconstruction=2, adversarial=3))
  config.training.steps = 5


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  return modules.one_generator(
    _generator(config),
    multiple=networks_lib.MULTIPLE,
    min_side=networks_lib.min_side(config.model.dilations),
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields.

  A term of weight 0 is not built: without `id_mrf` no VGG is loaded, without `adversarial` there
  are no critics. A phase of 0 steps is left out.
  """
  running = inference(config)
  _check_training(config)
  model, loss, dtype = config.model, config.loss, modules.DTYPES[config.dtype]
  networks: dict[str, nn.Module] = {'generator': _generator(config)}
  if loss.adversarial:
    normed = model.critic == 'hinge'
    networks |= networks_lib.critics(model.critic_width, spectral_norm=normed, dtype=dtype)
  generator = lambda full: Update(
    'generator', ('generator',), _generator_loss(config, networks, full=full), 'generator'
  )
  both = [generator(True)]
  if loss.adversarial:
    judging, repeat = _critic_loss(config, networks), loss.critic_steps
    both.insert(0, Update('critic', two_critics.CRITICS, judging, 'critic', repeat=repeat))
  forward, steps = _forward(networks), config.phases
  phases = (
    Phase('reconstruction', steps.reconstruction, forward, (generator(False),)),
    Phase('adversarial', steps.adversarial, forward, tuple(both)),
  )
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, two_critics.arguments(model)),
    phases=tuple(phase for phase in phases if phase.steps),
    load_constants=functools.partial(_load_constants, loss),
  )


def _generator(config: ConfigDict) -> nn.Module:
  model = config.model
  dilations = tuple(int(d) for d in model.dilations)
  return networks_lib.Generator(model.width, dilations, dtype=modules.DTYPES[config.dtype])


def _forward(networks: Networks) -> Forward:
  def forward(variables, constants, batch, rng):
    outputs, changed = modules.train_pass(
      networks, 'generator', variables, batch['image'], batch['mask']
    )
    return {'out': outputs['out']}, changed

  return forward


def _confidence(loss: ConfigDict, mask: jax.Array) -> jax.Array:
  return reconstruction.confidence_mask(
    mask,
    sigma=loss.confidence_sigma,
    size=loss.confidence_size,
    iterations=loss.confidence_iterations,
  )


def _generator_loss(config: ConfigDict, networks: Networks, *, full: bool) -> Loss:
  """The generator's update; without `full` the first phase's terms."""
  loss, size, dtype = config.loss, config.model.local_size, modules.DTYPES[config.dtype]
  judged, textured = full and bool(loss.adversarial), full and bool(loss.id_mrf)
  kind = KINDS[config.model.critic]

  def features(constants, x):
    centred = x - jnp.asarray(arrays.IMAGENET_MEAN)  # not divided by the deviation: C
    layers = tuple(dict.fromkeys((*loss.style_layers, *loss.content_layers)))
    depth = loss.vgg_depth
    return vgg.apply(constants['vgg'], centred, layers, depth=depth, normalize=False, dtype=dtype)

  def generator_loss(variables, constants, outputs, batch, rng):
    image, mask, out = batch['image'], batch['mask'], outputs['out']
    metrics, changed = {}, {}
    # The error in [-1, 1] is twice that in [0, 1].
    if loss.reconstruction:
      value = reconstruction.confidence_l1(out, image, mask, _confidence(loss, mask))
      metrics['reconstruction'] = 2 * loss.reconstruction * value
    if loss.autoencoder:
      value = reconstruction.masked_l1(out, image, 1 - mask, over_region=True)
      metrics['autoencoder'] = 2 * loss.autoencoder * value
    if judged or textured:
      two_critics.check_size(image, config.model, judged=judged)
      window = windows.middle_window(mask, size)
      fake = arrays.compose(out, image, mask)
      local = windows.cut(fake, window, size)
    if textured:
      real = jax.lax.stop_gradient(windows.cut(image, window, size))
      made, wanted = features(constants, local), features(constants, real)
      value = id_mrf.id_mrf_loss(made, wanted, loss.style_layers, loss.content_layers)
      metrics['id_mrf'] = loss.id_mrf * value
    if judged:
      for name, x in zip(two_critics.CRITICS, (local, fake), strict=True):
        scores, stats = modules.train_pass(networks, name, variables, x)
        changed |= stats
        metrics[f'adversarial_{two_critics.short(name)}'] = loss.adversarial * kind.generator(
          scores
        )
    return total(metrics, changed)

  return generator_loss


def _critic_loss(config: ConfigDict, networks: Networks) -> Loss:
  """Both critics' update."""
  loss, model = config.loss, config.model
  # The weight is of squared gradients.
  confident = (lambda mask: jnp.square(_confidence(loss, mask))) if loss.gp_confidence else None
  return two_critics.critic_loss(
    networks,
    model,
    KINDS[model.critic],
    name='critic',
    penalty=loss.gradient_penalty if model.critic == 'wgan_gp' else 0.0,
    penalised=confident,
  )


def _load_constants(loss: ConfigDict, *, shapes_only: bool = False) -> Constants:
  """{'vgg': its parameters}, or {} without the term that uses features."""
  if not loss.id_mrf:
    return {}
  layers, file = (*loss.style_layers, *loss.content_layers), loss.vgg_file or None
  return {'vgg': vgg.load_down_to(layers, loss.vgg_depth, file, shapes_only=shapes_only)}


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.critic', model.critic, KINDS)
  checks.dilations('model.dilations', model.dilations)
  if len(model.dilations) != 4:
    raise ValueError(f'config.model.dilations {tuple(model.dilations)} must be four')
  for name in ('width', 'critic_width'):
    checks.count(f'model.{name}', model[name])
  two_critics.check_model(model)


def _check_training(config: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  known, loss = default_config(), config.loss
  for section in ('loss', 'phases'):
    checks.same_fields(section, config[section], known[section])
  checks.weights(loss, WEIGHTS)
  checks.weights(loss, ('gradient_penalty',), needed=False)
  checks.phases(config.phases, last='adversarial')
  if config.phases.reconstruction and not (loss.reconstruction or loss.autoencoder):
    raise ValueError(
      'config.loss: reconstruction and autoencoder are 0, so the first phase has nothing to train: '
      'set config.phases.reconstruction=0 too'
    )
  for name in ('critic_steps', 'confidence_size', 'confidence_iterations'):
    checks.count(f'loss.{name}', loss[name])
  if loss.confidence_size % 2 == 0:
    raise ValueError(f'config.loss.confidence_size {loss.confidence_size} must be odd')
  if not loss.confidence_sigma > 0:
    raise ValueError(f'config.loss.confidence_sigma {loss.confidence_sigma!r} must be above 0')
  if loss.id_mrf:
    checks.one_of('loss.vgg_depth', loss.vgg_depth, vgg.BLOCKS)
    layers = (*loss.style_layers, *loss.content_layers)
    if not layers:
      raise ValueError('config.loss: style_layers and content_layers are empty: set id_mrf=0')
    for layer in layers:
      checks.one_of('loss.style_layers and content_layers:', layer, vgg.layer_names(loss.vgg_depth))
