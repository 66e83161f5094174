"""How Co-Mod-GAN is trained: a generator and a critic as StyleGAN2's, without any other loss.

Zhao, Cui, Sheng, Dong, Liang, Chang, Xu: "Large Scale Image Completion via Co-Modulated Generative
Adversarial Networks", ICLR 2021, https://arxiv.org/abs/2103.10428, section 3; numbers are those of
the authors' code.

  generator  mean softplus(-D(fake)) + l1 * mean |fake - image|
  critic     mean softplus(D(fake)) + mean softplus(-D(image))
  r1         r1_every * r1 / 2 * mean |gradient of D(image)|^2, in every 16th step alone
  path       path_every * path_length * mean (length - average length)^2, in every 4th step; off

Images are in [-1, 1]; `fake` is the output in the hole and the image elsewhere, and D sees the
mask, too. All follow from one pass, with one z (and in half of the images another one for the later
layers: style mixing), random noise, and dropout of the encoder's vector. Logged terms include their
weights. There is no augmentation of what the critic sees (ADA), as in the authors' code.
StyleGAN2's path length regularisation, which that code turns off, is an option:
`loss.path_length=2` with the generator's optimizer of `configs._base.lazily_regularised_adam`, of 4
steps. Its lengths are of half of the batch, and their average follows by 1 % each time.

Every key gives another completion. At inference z is drawn, the noise is the stored one, and
nothing is dropped: so runs the port whose weights can be imported. The authors' code drops
(`model.drop_at_inference=True`); and its generator draws w towards its average unless told
otherwise (`model.truncation=0.5`), which its validation does not.

Differs from the reference code:
  - the critic's fakes are of the pass that trains the generator, not of a further one;
  - each image has its own layer of style mixing; there it is one for the batch.
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxinpaint import arrays
from jaxinpaint.layers.stylegan2_networks import NOISES, Discriminator, latent_count
from jaxinpaint.losses import adversarial, reconstruction, regularisers
from jaxinpaint.recipe import Batch, Forward, Inference, Init, Loss, Outputs, Phase, Recipe, Update
from jaxinpaint.systems._shared import checks, lazy_r1, modules
from jaxinpaint.systems._shared.modules import Networks
from jaxinpaint.systems._shared.terms import total
from jaxinpaint.systems.comodgan import networks as networks_lib

LENGTH_RATE = 0.01  # StyleGAN2's, of the average path length


def default_config() -> ConfigDict:
  """The networks and weights of the authors' code, at 512 pixels."""
  model = dict(
    size=512,
    style_dim=512,
    mlp_layers=8,
    features=1024,
    max_channels=512,
    dropout=0.5,
    drop_at_inference=False,  # the port; the authors' code: True
    noise='stored',  # at inference: 'stored', 'random' or 'none'
    truncation=1.0,
  )
  loss = dict(
    adversarial=1.0,
    l1=0.0,
    r1=10.0,
    r1_every=16,
    style_mixing=0.5,  # probability
    path_length=0.0,  # StyleGAN2: 2
    path_every=4,
  )
  return ConfigDict(dict(system='comodgan', dtype='float32', model=model, loss=loss))


def quicktest(config: ConfigDict) -> None:
  """Narrows the networks, and fits them to small images; changes `config`."""
  config.model.update(dict(size=64, style_dim=8, mlp_layers=2, features=16, max_channels=8))


def inference(config: ConfigDict) -> Inference:
  """How the system of `config` is run; raises ValueError for invalid fields."""
  _check_model(config)
  model, networks = config.model, {'generator': _generator(config)}
  options = dict(noise=model.noise, drop=model.drop_at_inference, psi=model.truncation)

  def output(variables, constants, image, mask, rng, /, **inputs):
    z, rngs = _draw(rng, len(image), model.style_dim)
    run = dict(rngs=rngs, **options)
    return modules.run(networks, 'generator', variables, image, mask, z, **run)['out']

  return Inference(
    networks=('generator',),
    init=modules.initializer(networks, _arguments(model)),
    output=output,
    side=model.size,
    samples=True,
  )


def make(config: ConfigDict) -> Recipe:
  """How it is run and trained; raises ValueError for invalid fields."""
  running = inference(config)
  _check_loss(config.loss)
  model, loss = config.model, config.loss
  networks = {'generator': _generator(config)}
  updates = [Update('generator', ('generator',), generator_loss(loss, networks), 'generator')]
  if loss.path_length:
    penalty = path_loss(config, networks)
    updates.append(Update('path', ('generator',), penalty, 'generator', every=loss.path_every))
  if loss.adversarial:
    networks['critic'] = Discriminator(
      model.size, max_channels=model.max_channels, dtype=modules.DTYPES[config.dtype]
    )
    updates.append(Update('critic', ('critic',), critic_loss(networks), 'critic'))
    if loss.r1:
      how = dict(gamma=loss.r1, every=loss.r1_every, optimizer='critic')
      updates.append(lazy_r1.update(networks, ('critic',), networks_lib.judged, **how))
  init = modules.initializer(networks, _arguments(model))
  return Recipe(
    running,
    networks=tuple(networks),
    init=_with_length(init) if loss.path_length else init,
    phases=(Phase('joint', -1, _forward(config, networks), tuple(updates)),),
  )


def _generator(config: ConfigDict) -> networks_lib.Generator:
  model = config.model
  return networks_lib.Generator(
    model.size,
    model.style_dim,
    model.mlp_layers,
    model.features,
    model.max_channels,
    model.dropout,
    modules.DTYPES[config.dtype],
  )


def _arguments(model: ConfigDict) -> modules.Arguments:
  size = model.size
  shapes = {
    'generator': ((size, size, 3), (size, size, 1), (model.style_dim,)),
    'critic': ((size, size, 4),),
  }
  return lambda height, width: shapes


def _draw(rng: jax.Array, count: int, features: int) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(z f32[count,features], the keys of noise and dropout)."""
  rng_z, rng_noise, rng_dropout = jax.random.split(rng, 3)
  z = jax.random.normal(rng_z, (count, features))
  return z, {'noise': rng_noise, 'dropout': rng_dropout}


def _forward(config: ConfigDict, networks: Networks) -> Forward:
  model, loss = config.model, config.loss

  def forward(variables, constants, batch, rng):
    count = len(batch['image'])
    rng, rng_mixing = jax.random.split(rng)
    z, rngs = _draw(rng, count, model.style_dim)
    other = None
    if loss.style_mixing:
      other = _mixed(
        rng_mixing, count, model.style_dim, loss.style_mixing, latent_count(model.size)
      )
    outputs, changed = modules.train_pass(
      networks,
      'generator',
      variables,
      batch['image'],
      batch['mask'],
      z,
      other=other,
      noise='random',
      drop=True,
      rngs=rngs,
    )
    return {'raw': outputs['raw']}, changed

  return forward


def _mixed(
  rng: jax.Array, count: int, features: int, probability: float, layers: int
) -> tuple[jax.Array, jax.Array]:
  """(another z, the layer i32[count] it begins at): one of 1 ... layers - 1, or none (layers)."""
  rng_z, rng_mixes, rng_layer = jax.random.split(rng, 3)
  mixes = jax.random.uniform(rng_mixes, (count,)) < probability
  layer = jax.random.randint(rng_layer, (count,), 1, layers)
  return jax.random.normal(rng_z, (count, features)), jnp.where(mixes, layer, layers)


def _fake(outputs: Outputs, batch: Batch) -> jax.Array:
  """The completed image in [-1,1]."""
  return arrays.compose(outputs['raw'], 2 * batch['image'] - 1, batch['mask'])


def generator_loss(loss: ConfigDict, networks: Networks) -> Loss:
  """The update of the generator; `networks` may get its critic later."""

  def loss_of(variables, constants, outputs, batch, rng):
    fake, metrics = _fake(outputs, batch), {}
    if loss.adversarial:
      logits = modules.run(networks, 'critic', variables, networks_lib.judged(fake, batch['mask']))
      metrics['adversarial'] = loss.adversarial * adversarial.non_saturating.generator(logits)
    if loss.l1:
      metrics['l1'] = loss.l1 * reconstruction.l1(fake, 2 * batch['image'] - 1)
    return total(metrics)

  return loss_of


def critic_loss(networks: Networks) -> Loss:
  """The update of the critic."""

  def loss_of(variables, constants, outputs, batch, rng):
    judge = lambda image: modules.run(
      networks, 'critic', variables, networks_lib.judged(image, batch['mask'])
    )
    fake = jax.lax.stop_gradient(_fake(outputs, batch))
    # Two calls, not one with a double batch: deviations are within groups of one kind.
    terms = adversarial.non_saturating.discriminator(judge(2 * batch['image'] - 1), judge(fake))
    return total(dict(zip(('real', 'fake'), terms, strict=True)))

  return loss_of


def path_loss(config: ConfigDict, networks: Networks) -> Loss:
  """The update 'path' of the generator; the average length is a statistic beside the networks."""
  model, loss = config.model, config.loss

  def loss_of(variables, constants, outputs, batch, rng):
    image, mask = (batch[name][: max(1, len(batch[name]) // 2)] for name in ('image', 'mask'))
    rng_draw, rng_noise = jax.random.split(rng)
    z, rngs = _draw(rng_draw, len(image), model.style_dim)
    run = functools.partial(modules.run, networks, 'generator', variables)

    def draw(w):
      return run(image, mask, w, noise='random', drop=True, rngs=rngs, method='complete')['raw']

    lengths = regularisers.path_lengths(draw, run(z, method='mapping'), rng_noise)
    average = variables.stats['path']['buffers']['length']
    average += LENGTH_RATE * (jax.lax.stop_gradient(lengths).mean() - average)
    penalty = loss.path_every * loss.path_length * jnp.square(lengths - average).mean()
    changed = {'path': {'buffers': {'length': average}}}
    return total({'penalty': penalty}, changed, shown={'length': lengths.mean()})

  return loss_of


def _with_length(init: Init) -> Init:
  def with_length(rng, batch):
    return init(rng, batch).with_stats({'path': {'buffers': {'length': jnp.zeros(())}}})

  return with_length


def _check_model(config: ConfigDict) -> None:
  """Raises ValueError for invalid settings of the networks."""
  model = config.model
  checks.same_fields('model', model, default_config().model)
  checks.one_of('dtype', config.dtype, modules.DTYPES)
  checks.one_of('model.noise', model.noise, NOISES)
  for name in ('size', 'style_dim', 'mlp_layers', 'features', 'max_channels'):
    checks.count(f'model.{name}', model[name])
  latent_count(model.size)
  if not 0 <= model.dropout < 1:
    raise ValueError(f'config.model.dropout {model.dropout!r} must be in [0, 1)')


def _check_loss(loss: ConfigDict) -> None:
  """Raises ValueError for settings that would fail later or train nothing useful."""
  checks.same_fields('loss', loss, default_config().loss)
  checks.weights(loss, ('adversarial', 'l1'))
  checks.weights(loss, ('r1', 'path_length'), needed=False)
  for name in ('r1_every', 'path_every'):
    checks.count(f'loss.{name}', loss[name])
  if not 0 <= loss.style_mixing <= 1:
    raise ValueError(f'config.loss.style_mixing {loss.style_mixing!r} must be a probability')
