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
from jaxinpaint.training import state, step
from jaxinpaint.training.compiled import Programs
from jaxinpaint.training.recipe import Phase

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
    known = programs.has(batch, plan)
    program = programs.get(*arguments, plan)
    assert known == (program in found)
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


def test_a_batch_of_another_shape_is_reported_with_what_differs(caplog):
  caplog.set_level(logging.WARNING)
  batches = [toy.batch()] * 4 + [toy.batch(rows=6), toy.batch(), toy.batch(rows=6)]
  run(toy.recipe(*PHASES), batches)
  (record,) = [r for r in caplog.records if 'compiled again' in r.getMessage()]
  text = record.getMessage()
  assert "phase 'joint' (updates generator, critic)" in text
  assert 'image is float32[6,8,8,3] and was float32[8,8,8,3]' in text
  assert 'id is int32[6] and was int32[8]' in text


def test_a_batch_of_another_type_is_reported(caplog):
  caplog.set_level(logging.WARNING)
  batch = toy.batch()
  whole = {**batch, 'image': (255 * batch['image']).astype(jnp.uint8)}
  run(toy.recipe(), [batch, whole])
  assert 'image is uint8[8,8,8,3] and was float32[8,8,8,3]' in caplog.text
  assert 'mask' not in caplog.text.split('compiled again')[1]


def test_the_programs_compute_what_the_jitted_step_does():
  recipe = toy.recipe(*PHASES)
  programmed, _, _ = run(recipe, [toy.batch(seed=i) for i in range(5)])
  train_step = step.make_train_step(recipe, SGD)
  jitted = state.create(recipe, SGD, (), jax.random.key(0), toy.batch())
  for i in range(5):
    jitted, _ = train_step(jitted, {}, toy.batch(seed=i), jax.random.key(1), recipe.plan(i))
  jax.tree.map(np.testing.assert_array_equal, programmed, jitted)


def test_flops_of_a_step_are_those_of_its_products():
  _, found, _ = run(toy.recipe(), [toy.batch()])
  pixels = 8 * 8 * 8
  # The generator's product 4 x 3, forward and (of its weights) backward; through the critic's
  # 3 x 8 and 8 forward and back to the picture; and its own update's, of fakes and photographs.
  generator = pixels * (2 * 12 + 2 * (24 + 8))
  critic = 2 * pixels * (2 * (24 + 8) + 8)
  # Of what jax leaves out of each the count is not known better than so.
  assert 0.7 < found[0].useful_flops / (2 * (generator + critic)) < 1.3
  # The compiler counts additions and activations too, here many.
  assert found[0].flops > 0.5 * found[0].useful_flops


def test_what_is_computed_again_for_the_gradients_counts_once():
  def block(w, x):
    return jnp.tanh(jnp.tanh(x @ w) @ w)

  def count(block):
    loss = lambda w, x: block(w, block(w, x)).sum()
    shapes = jnp.ones((16, 16)), jnp.ones((4, 16))
    return operations.flops_of_trace(jax.make_jaxpr(jax.grad(loss))(*shapes))

  assert count(jax.checkpoint(block)) == count(block) > 0


def test_flops_are_of_all_devices(caplog):
  recipe = toy.recipe()
  train_step = step.make_train_step(recipe, SGD)
  current = state.create(recipe, SGD, (), jax.random.key(0), toy.batch())
  arguments = (current, {}, toy.batch(), jax.random.key(1), recipe.plan(0))
  one = Programs(train_step, recipe).get(*arguments)
  eight = Programs(train_step, recipe, devices=8).get(*arguments)
  assert eight.flops == 8 * one.flops > 0
  assert eight.useful_flops == one.useful_flops
