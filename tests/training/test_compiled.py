"""The step's programs: what they say of their work, and that nothing is compiled in silence."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from jaxinpaint.layers import operations
from jaxinpaint.recipe import Phase
from jaxinpaint.training import state, step
from jaxinpaint.training.compiled import Programs

SGD = {'generator': optax.sgd(0.1), 'critic': optax.sgd(0.1)}
LAZY = dataclasses.replace(toy.CRITIC, every=2)
PHASES = (
  Phase('warm-up', 2, toy.forward, (toy.GENERATOR,)),
  Phase('joint', -1, toy.forward, (toy.GENERATOR, LAZY)),
)


def run(recipe, batches):
  """Takes steps as the loop does; (the last state, the programs of all steps)."""
  train_step = step.make_train_step(recipe, SGD)
  programs = Programs(train_step, recipe)
  current = state.create(recipe, SGD, (), jax.random.key(0), toy.batch())
  found = []
  for i, batch in enumerate(batches):
    arguments = (current, {}, batch, jax.random.key(1))
    plan = recipe.plan(i)
    program = programs.find(batch, plan)
    assert (program is None) or program in found
    program = program or programs.compile(*arguments, plan)
    current, _ = program.run(*arguments)
    found.append(program)
  return current, found, programs


def test_phases_and_lazy_updates_compile_once_each_and_warn_of_nothing(caplog):
  batch = toy.batch()
  current, found, programs = run(toy.recipe(*PHASES), [batch] * 8)
  assert int(current.step) == 8
  assert len(set(map(id, found))) == 3  # warm-up; joint with and without the critic
  assert found[2] is found[4] is found[6] and found[3] is found[5] is found[7]
  assert programs.seconds == pytest.approx(sum({id(p): p.seconds for p in found}.values()))
  assert 'compiled again' not in caplog.text


def test_a_batch_of_another_shape_or_type_is_reported_once_with_what_differs(caplog):
  caplog.set_level(logging.WARNING)
  usual, other = toy.batch(), toy.batch(rows=6)
  other['mask'] = other['mask'].astype(jnp.uint8)
  run(toy.recipe(), [usual, other, usual, other])
  (record,) = [r for r in caplog.records if 'compiled again' in r.getMessage()]
  text = record.getMessage()
  assert "phase 'joint' (updates generator, critic)" in text
  assert 'image is float32[6,8,8,3] and was float32[8,8,8,3]' in text
  assert 'mask is uint8[6,8,8,1] and was float32[8,8,8,1]' in text


def test_a_program_computes_what_the_jitted_step_does_and_counts_its_products():
  recipe, batch = toy.recipe(), toy.batch()
  programmed, found, _ = run(recipe, [batch])
  train_step = step.make_train_step(recipe, SGD)
  jitted = state.create(recipe, SGD, (), jax.random.key(0), batch)
  jitted, _ = train_step(jitted, {}, batch, jax.random.key(1), recipe.plan(0))
  jax.tree.map(np.testing.assert_array_equal, programmed, jitted)
  # The generator (4 x 3): forward, through the critic (3 x 8, 8) forward and back to the picture,
  # and its weights'. The critic, of fakes and photographs: forward, and (of v, of the hidden layer,
  # of w) backward. Not the critic's gradient through the generator, which nobody needs.
  generator = 12 + 2 * (24 + 8) + 12
  critic = 2 * (24 + 8) + 2 * (8 + 8 + 24)
  assert found[0].useful_flops == 2 * 8 * 8 * 8 * (generator + critic)
  # The compiler counts additions and activations too, here many.
  assert found[0].flops > 0.5 * found[0].useful_flops


@pytest.mark.parametrize(
  ('told', 'want'),
  [({'flops': 5.0}, 40.0), ([{'flops': 5.0}], 40.0), ({}, 0.0), (None, 0.0), ({'flops': -1.0}, 0)],
)
def test_flops_are_of_all_devices_and_0_where_the_compiler_does_not_say(told, want):
  class Step:
    """In the place of jax's jitted function, its trace, lowered and compiled form."""

    jaxpr = jax.make_jaxpr(lambda x: x @ x)(np.ones((2, 2)))
    trace = lower = compile = lambda self, *_: self
    cost_analysis = lambda self: told

  program = Programs(Step(), toy.recipe(), devices=8).compile(0, {}, {}, 0, toy.recipe().plan(0))
  assert program.flops == want and program.useful_flops == 2 * 8


def test_what_is_computed_again_for_the_gradients_counts_once():
  def block(w, x):
    return jnp.tanh(jnp.tanh(x @ w) @ w)

  def count(block):
    loss = lambda w, x: block(w, block(w, x)).sum()
    shapes = jnp.ones((16, 16)), jnp.ones((4, 16))
    return operations.flops_of_trace(jax.make_jaxpr(jax.value_and_grad(loss))(*shapes))

  assert count(jax.checkpoint(block)) == count(block) > 0
