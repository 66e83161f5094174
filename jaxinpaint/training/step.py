"""The train step: one jitted, donated function for every recipe.

The host decides what a step does, by `recipe.plan(step)`. The plan is static under jit, so there is
no branching inside, and one compilation for each distinct plan. A forward pass that several updates
share is computed once, under `jax.vjp`; each loss's gradient with respect to the outputs is pulled
back through it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxinpaint import arrays
from jaxinpaint.layers import placement
from jaxinpaint.recipe import (
  Batch,
  Constants,
  Metrics,
  Outputs,
  Params,
  Phase,
  Plan,
  Recipe,
  Update,
  Variables,
)
from jaxinpaint.training import averages
from jaxinpaint.training.state import TrainState


def _run_update(
  state: TrainState,
  update: Update,
  shared: tuple[Outputs, Callable],
  constants: Constants,
  batch: Batch,
  optimizer: optax.GradientTransformation,
  rng: jax.Array,
) -> tuple[TrainState, Metrics]:
  """One optimizer step; returns the state after it and {term: value}."""
  outputs, pullback = shared
  trained = {n: state.params[n] for n in update.trains}

  def loss(trained, outputs):
    variables = state.variables.with_params(trained)
    return update.loss(variables, constants, outputs, batch, rng)

  (_, aux), (direct, cotangent) = jax.value_and_grad(
    loss, argnums=(0, 1), has_aux=True, allow_int=True
  )(trained, outputs)
  (through,) = pullback(cotangent)
  grads = jax.tree.map(jnp.add, direct, {n: through[n] for n in update.trains})
  changes, opt = optimizer.update(grads, state.opt[update.optimizer], trained)
  metrics = {
    **aux['metrics'],
    'grad_norm': optax.global_norm(grads),
    'update_norm': optax.global_norm(changes),
  }
  variables = state.variables.with_params(optax.apply_updates(trained, changes))
  variables = variables.with_stats(aux.get('stats', {}))
  return _with(state, variables, opt={**state.opt, update.optimizer: opt}), metrics


def _with(state: TrainState, variables: Variables, **others: Any) -> TrainState:
  return state.replace(params=variables.params, stats=variables.stats, **others)


def _run_phase(
  state: TrainState,
  phase: Phase,
  active: tuple[str, ...],
  constants: Constants,
  batch: Batch,
  optimizers: Mapping[str, optax.GradientTransformation],
  rng: jax.Array,
) -> tuple[TrainState, Metrics]:
  """All active updates of one step, in the phase's order."""
  rng_forward, rng_updates = jax.random.split(rng)
  before = state.params

  def forward(state, params, key):
    run = lambda p: phase.forward(Variables(p, state.stats), constants, batch, key)
    outputs, pullback, changed = jax.vjp(run, params, has_aux=True)
    return (outputs, pullback), _with(state, state.variables.with_stats(changed))

  shared = None
  metrics: dict[str, jax.Array] = {}
  # The index in phase.updates, not among the active ones: an update's random numbers must not
  # depend on which others run beside it.
  for index, update in enumerate(phase.updates):
    if update.name not in active:
      continue
    for repeat in range(update.repeat):
      rng_update = jax.random.fold_in(jax.random.fold_in(rng_updates, index), repeat)
      if phase.share_forward and not update.fresh_forward:
        if shared is None:
          shared, state = forward(state, before, rng_forward)
        own = shared
      else:
        rng_update, key = jax.random.split(rng_update)
        own, state = forward(state, state.params, key)
      optimizer = optimizers[update.optimizer]
      state, terms = _run_update(state, update, own, constants, batch, optimizer, rng_update)
      metrics |= {f'{update.name}/{k}': v.astype(jnp.float32) for k, v in terms.items()}
  return state, metrics


def make_train_step(
  recipe: Recipe,
  optimizers: Mapping[str, optax.GradientTransformation],
  *,
  ema_decay: averages.Decay = 0.0,
  accumulate: int = 1,
  state_sharding: Any = None,
  constants_sharding: Any = None,
  replicated: Any = None,
  draw_masks: Callable[[jax.Array, int, int], jax.Array] | None = None,
) -> jax.stages.Wrapped:
  """The compiled step: (state, constants, batch, rng, recipe.plan(step)) -> (state, metrics).

  It is compiled at its first call. `state` is donated. `batch` may have uint8 images and masks;
  they become float32 inside. `rng` is the run's key, the same at every step; the step's own key is
  derived from it and state.step.

  metrics is {update/term: f32[]} and 'finite': bool[]. If a term, a gradient, an optimizer's change
  of the parameters or a statistic is not finite, 'finite' is False, and the returned state is the
  one before the step, with only the clock advanced. So such a step never changes the parameters,
  and the loop decides whether to continue.

  Args:
    recipe: how the system is trained.
    optimizers: {name: optax transformation} for `recipe.optimizers`.
    ema_decay: of the averages in `state.ema`; each is updated with its network's optimizer step. A
      number, or a function of the step.
    accumulate: steps for each optimizer step.
    state_sharding: tree of shardings for the state (None: jax decides, for one device).
    constants_sharding: for the constants.
    replicated: for the key and the metrics. Arrays of the batch stay where they are.
    draw_masks: (keys u32[B, 2], height, width) -> f32[B, H, W, 1], if the batch has 'mask_key'
      instead of masks.
  """
  shardings = {}
  if state_sharding is not None:
    shardings = dict(
      in_shardings=(state_sharding, constants_sharding, None, replicated),
      out_shardings=(state_sharding, replicated),
    )

  # The program may be compiled for other devices than the default ones (`cost.estimate`).
  placed = placement.Placement.on(replicated.mesh if replicated is not None else None)

  @functools.partial(jax.jit, static_argnames='plan', donate_argnames='state', **shardings)
  def train_step(state, constants, batch, rng, plan: Plan):
    batch = {**batch, 'image': arrays.to_float(batch['image'])}
    if draw_masks:
      mask = draw_masks(batch.pop('mask_key'), *batch['image'].shape[1:3])
    else:
      mask = batch['mask'].astype(jnp.float32)
    batch['mask'] = mask
    phase = recipe.phases[plan.phase]
    rng = jax.random.fold_in(rng, state.step)
    with placement.use(placed):
      new, metrics = _run_phase(state, phase, plan.updates, constants, batch, optimizers, rng)
    active = [u for u in phase.updates if u.name in plan.updates]
    ema = dict(state.ema)
    decay = ema_decay(state.step) if callable(ema_decay) else ema_decay
    for network in ema:
      of = [u.optimizer for u in active if network in u.trains]
      if of:
        # While gradients are accumulated the parameters rest, and so does their average.
        moves = new.opt[of[-1]].mini_step == 0 if accumulate > 1 else True
        ema[network] = _average(ema[network], new.params[network], decay, moves)
    new = new.replace(step=state.step + 1, ema=ema)
    # Parameters are watched through the optimizers' changes; statistics have no such term.
    watched = [*metrics.values(), *_floats(new.stats)]
    finite = jnp.all(jnp.stack([jnp.isfinite(v).all() for v in watched] or [jnp.array(True)]))
    kept = state.replace(step=state.step + 1)
    new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, kept)
    return new, {**metrics, 'finite': finite}

  return train_step


def _average(average: Params, params: Params, decay: Any, moves: Any) -> Params:
  kept = jnp.where(moves, decay, 1.0)
  return jax.tree.map(lambda e, p: (kept * e + (1 - kept) * p).astype(e.dtype), average, params)


def _floats(tree: Any) -> list[jax.Array]:
  return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def nonfinite_terms(metrics: Mapping[str, Any]) -> list[str]:
  """Names ('update/term') of the metrics that are NaN or infinite, losses before norms."""
  bad = [k for k, v in metrics.items() if k != 'finite' and not bool(jnp.isfinite(v))]
  return sorted(bad, key=lambda k: (k.endswith('_norm'), k.endswith('/total'), k))
