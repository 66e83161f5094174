"""How Pluralistic is trained: two paths through one generator, KL terms and two discriminators.

Zheng, Cham, Cai: "Pluralistic Image Completion", CVPR 2019, sections 3.2 and 3.4. Weights and
details are those of the authors' code. A pass encodes the visible and the hidden part of each
image, draws one z from the posterior (reconstructive path, 'rec') and one from the prior
(generative path, 'gen'), and decodes both:

  generator     = kl * 4 * (KL(N(0, m) | posterior) + KL(posterior | prior))
                  + appearance * sum over 4 scales of L1(rec) + L1(gen, visible pixels)
                  + adversarial * (mean (D_rec(rec) - D_rec(x))^2 + mean (D(gen) - 1)^2)
  discriminator = for (D, gen) and (D_rec, rec): (mean (D(x) - 1)^2 + mean D(fake)^2) / 2

where m = 1 / (1 + exp(8 * (share of visible pixels - 1e-5 - 0.8))): the larger the hole, the wider
is N(0, m). The posterior of KL(posterior | prior) gets no gradient. L1 is of values in [-1, 1]. The
images and masks of the smaller scales are resized bilinearly with aligned corners, so that masks
become soft. Both discriminators see whole outputs, not pasted ones. All are stepped on the same
pass, the discriminators first.

Differs from the paper (the defaults are the code's, by which the published weights were trained):
  - the code turns round the divergence of the reconstructive path. The paper has KL(posterior |
    N(0, m)): `kl_direction='paper'`;
  - KL terms weigh 4 times as much as the paper says, by the number of scales (`kl=5` undoes it);
  - the means of appearance run over several scales.
Differs from the reference code:
  - each mean of visible pixels is over this image's own mask, drawn for each image by itself;
  - no discriminator ranks the completions of an image at inference.
`train_paths='one'` trains the prior towards N(0, m), as the code's option of that name.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.losses import adversarial, reconstruction
from jaxinpaint.recipe import Forward, Inference, Loss, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.pluralistic import networks as networks_lib

PAINTING = ('encoder', 'generator')
# {discriminator: which of the outputs it judges}
JUDGED = {'discriminator': 'gen', 'discriminator_rec': 'rec'}
WEIGHTS = ('kl', 'appearance', 'adversarial')


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code."""
  model = dict(
    width=32,
    latent=128,
    layers=5,
    prior_blocks=6,
    discriminator_width=32,
    kernel_init='torch',  # or 'orthogonal_0.02'; see networks.py
  )
  loss = dict(
    kl=20.0,  # times the number of scales
    appearance=20.0,
    adversarial=1.0,
    train_paths='two',  # or 'one'
    kl_direction='released',  # or 'paper'
  )
  return ConfigDict(dict(system='pluralistic', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, and leaves out a halving so that 64 pixels are enough; in place."""
  config.model.update(dict(width=8, latent=8, layers=4, prior_blocks=1, discriminator_width=8))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  networks = _networks(config, judged=False)

  def output(variables, constants, image, mask, rng, /, **inputs):
    encoded = modules.run(networks, 'encoder', variables, image, mask)
    z = _draw(rng, *encoded['prior'])
    features = encoded['features']
    memory = features[networks_lib.MEMORY]
    return modules.run(networks, 'generator', variables, z, features[-1], memory, mask)['out']

  layers = config.model.layers
  return Inference(
    networks=PAINTING,
    init=modules.initializer(networks, _arguments(config)),
    output=output,
    multiple=networks_lib.multiple(layers),
    min_side=networks_lib.min_side(layers),
    samples=True,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_loss(config.loss)
  judged = bool(config.loss.adversarial)
  networks = _networks(config, judged=judged)
  updates = [Update('generator', PAINTING, generator_loss(config.loss, networks), 'generator')]
  if judged:
    judging = Update('discriminator', tuple(JUDGED), discriminator_loss(networks), 'discriminator')
    updates.insert(0, judging)
  return Recipe(
    running,
    networks=tuple(networks),
    init=modules.initializer(networks, _arguments(config)),
    phases=(Phase('joint', -1, _forward(networks), tuple(updates)),),
  )


def _networks(config: ConfigDict, *, judged: bool) -> Networks:
  model = config.model
  shared = dict(
    layers=model.layers,
    kernel_init=networks_lib.KERNEL_INITS[model.kernel_init],
    dtype=modules.DTYPES[config.dtype],
  )
  networks = {
    'encoder': networks_lib.Encoder(
      model.width, model.latent, prior_blocks=model.prior_blocks, **shared
    ),
    'generator': networks_lib.Generator(model.width, **shared),
  }
  if judged:
    networks |= {n: networks_lib.Discriminator(model.discriminator_width, **shared) for n in JUDGED}
  return networks


def _arguments(config: ConfigDict) -> modules.Arguments:
  model = config.model
  channels = 4 * model.width

  def arguments(height, width):
    least = networks_lib.min_side(model.layers)
    if min(height, width) < least:
      raise ValueError(
        f'images of {height} x {width} leave the discriminators nothing to judge: train with '
        f'config.data.size >= {least}, or with fewer config.model.layers ({model.layers} now)'
      )
    part = lambda scale, c: (height // scale, width // scale, c)
    deepest, image, mask = 2**model.layers, (height, width, 3), (height, width, 1)
    z, feature, memory = part(deepest, model.latent), part(deepest, channels), part(8, channels)
    return {
      'encoder': (image, mask),
      'generator': (z, feature, memory, mask),
      **{name: (image,) for name in JUDGED},
    }

  return arguments


def _draw(rng: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
  return mean + deviation * arrays.drawn(jax.random.normal, rng, mean.shape)


def _forward(networks: Networks) -> Forward:
  """Both paths in one pass; the two z of an image are neighbours in the generator's batch."""

  def forward(variables, constants, batch, rng):
    image, mask = batch['image'], batch['mask']
    encoded, changed = modules.train_pass(networks, 'encoder', variables, image, mask, hidden=True)
    keys = jax.random.split(rng)
    drawn = [_draw(k, *encoded[n]) for k, n in zip(keys, ('posterior', 'prior'), strict=True)]
    z = jnp.stack(drawn, 1)
    twice = lambda x: jnp.repeat(x, 2, axis=0)
    features = encoded['features']
    outputs, changed_generator = modules.train_pass(
      networks,
      'generator',
      variables,
      z.reshape(-1, *z.shape[2:]),
      twice(features[-1]),
      twice(features[networks_lib.MEMORY]),
      twice(mask),
    )
    pairs = [x.reshape(-1, 2, *x.shape[1:]) for x in outputs['scales']]
    found = {'posterior': encoded['posterior'], 'prior': encoded['prior']}
    found |= {name: tuple(x[:, k] for x in pairs) for k, name in enumerate(('rec', 'gen'))}
    return found, changed | changed_generator

  return forward


def assumed_deviation(mask: jax.Array) -> jax.Array:
  """f32[B,1,1,1], of the distribution that is assumed of what a hole hides; `mask`: 1 = hole."""
  visible = (1 - mask.astype(jnp.float32)).mean((1, 2, 3), keepdims=True)
  return 1 / (1 + jnp.exp(8 * (visible - 1e-5 - 0.8)))


def divergence(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Mean over all numbers of KL(p | q) of normal distributions (mean, deviation); f32[]."""
  (mean_p, of_p), (mean_q, of_q) = p, q
  spread = (jnp.square(of_p) + jnp.square(mean_p - mean_q)) / (2 * jnp.square(of_q))
  return (jnp.log(of_q / of_p) + spread - 0.5).mean()


def kl_terms(loss: ConfigDict, outputs: dict, mask: jax.Array) -> dict[str, jax.Array]:
  """{'kl_rec', 'kl_gen'}: both divergences, without their weights."""
  posterior, prior = outputs['posterior'], outputs['prior']
  deviation = assumed_deviation(mask) * jnp.ones_like(posterior[1])
  assumed = jnp.zeros_like(deviation), deviation
  pair = (posterior, assumed) if loss.kl_direction == 'paper' else (assumed, posterior)
  target = assumed if loss.train_paths == 'one' else jax.lax.stop_gradient(posterior)
  return {'kl_rec': divergence(*pair), 'kl_gen': divergence(target, prior)}


def appearance_terms(outputs: dict, image: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
  """{'appearance_rec', 'appearance_gen'}: sums of all scales' L1 in [-1,1], without weights."""
  terms = {'appearance_rec': 0.0, 'appearance_gen': 0.0}
  for rec, gen in zip(outputs['rec'], outputs['gen'], strict=True):
    size = rec.shape[1:3]
    wanted, hole = (arrays.resize_bilinear(x, *size, align_corners=True) for x in (image, mask))
    terms['appearance_rec'] += 2 * reconstruction.l1(rec, wanted)
    terms['appearance_gen'] += 2 * reconstruction.l1(gen, wanted, 1 - hole)
  return terms


def generator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  """The update of encoder and generator."""
  weights = {'kl': loss.kl * networks_lib.SCALES, 'appearance': loss.appearance}

  def generator_loss(variables, constants, outputs, batch, rng):
    image, mask = batch['image'], batch['mask']
    terms, changed = {}, {}
    if loss.kl:
      terms |= kl_terms(loss, outputs, mask)
    if loss.appearance:
      terms |= appearance_terms(outputs, image, mask)
    metrics = {name: weights[name.partition('_')[0]] * value for name, value in terms.items()}
    if loss.adversarial:
      gen, changed = modules.train_pass(networks, 'discriminator', variables, outputs['gen'][-1])
      metrics['adversarial_gen'] = loss.adversarial * adversarial.least_squares.generator(gen)
      name = 'discriminator_rec'
      rec, stats = modules.train_pass(networks, name, variables, outputs['rec'][-1])
      real, stats = modules.train_pass(networks, name, variables.with_stats(stats), image)
      metrics['adversarial_rec'] = loss.adversarial * jnp.square(rec - real).mean()
      changed = changed | stats
    return total(metrics, changed)

  return generator_loss


def discriminator_loss(networks: Networks) -> Loss:
  """The update of both discriminators."""

  def discriminator_loss(variables, constants, outputs, batch, rng):
    metrics, changed = {}, {}
    for name, path in JUDGED.items():
      fake = jax.lax.stop_gradient(outputs[path][-1])
      # Two calls, not one with a double batch: each takes its own power iteration.
      real_logits, stats = modules.train_pass(networks, name, variables, batch['image'])
      fake_logits, stats = modules.train_pass(networks, name, variables.with_stats(stats), fake)
      real, made = adversarial.least_squares.discriminator(real_logits, fake_logits)
      metrics |= {f'real_{path}': real / 2, f'fake_{path}': made / 2}
      changed |= stats
    return total(metrics, changed)

  return discriminator_loss


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.kernel_init', model.kernel_init, networks_lib.KERNEL_INITS)
  for name in ('width', 'latent', 'layers', 'discriminator_width'):
    checks.count(f'model.{name}', model[name])
  if model.layers < networks_lib.SCALES:
    raise ValueError(
      f'config.model.layers {model.layers} must be at least {networks_lib.SCALES}: the generator '
      'gives outputs at 1/8, 1/4, 1/2 and the whole of the side'
    )
  if isinstance(model.prior_blocks, bool) or not model.prior_blocks >= 0:
    raise ValueError(f'config.model.prior_blocks {model.prior_blocks!r} must be a number of blocks')


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, WEIGHTS)
  checks.one_of('loss.train_paths', loss.train_paths, ('two', 'one'))
  checks.one_of('loss.kl_direction', loss.kl_direction, ('released', 'paper'))
