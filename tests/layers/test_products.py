"""Products in bfloat16 lose nothing but the operands' bits, and leave no float32 product behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import (
  contextual_attention,
  knowledge_attention,
  level_attention,
  operations,
  products,
  region_affinity,
  self_attention,
)

SPEC = 'bqc,bkc->bqk'


def draw(*shape, seed=0, dtype=jnp.bfloat16):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def test_the_sum_of_narrow_operands_is_float32():
  a, b = draw(2, 3, 500), draw(2, 5, 500, seed=1)
  found = products.einsum(SPEC, a, b, jnp.bfloat16)
  want = np.einsum(SPEC, *(np.asarray(x, np.float64) for x in (a, b)))
  assert found.dtype == jnp.float32
  # A result that was rounded to bfloat16 would differ by up to 0.1 here.
  np.testing.assert_allclose(found, want, atol=1e-4)


def test_in_float32_it_is_the_plain_einsum_to_the_bit():
  a, b = draw(2, 3, 50, dtype=jnp.float32), draw(2, 5, 50, seed=1, dtype=jnp.float32)
  want = jnp.einsum(SPEC, a, b, precision='highest')
  np.testing.assert_array_equal(products.einsum(SPEC, a, b, jnp.float32), want)


def test_the_gradient_is_that_of_float32_but_for_rounding():
  a, b, c = draw(2, 3, 50), draw(2, 5, 50, seed=1), draw(2, 3, 5, seed=2, dtype=jnp.float32)

  def gradients(dtype):
    loss = lambda a, b: (c * products.einsum(SPEC, a, b, dtype)).sum()
    return jax.grad(loss, (0, 1))(a, b)

  for narrow, exact in zip(gradients(jnp.bfloat16), gradients(jnp.float32), strict=True):
    assert narrow.dtype == jnp.bfloat16
    # Two roundings of 2^-9 each, of sums of up to five products of about 1.
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (narrow, exact)), atol=0.05)


def test_a_gradient_of_a_gradient_is_there():
  square = lambda a: products.einsum('qc,kc->qk', a, a, jnp.bfloat16).sum()
  length = lambda a: (jax.grad(square)(a).astype(jnp.float32) ** 2).sum()
  assert np.abs(np.asarray(jax.grad(length)(draw(3, 4)), np.float32)).max() > 0


MASK = jnp.zeros((2, 16, 16, 1)).at[:, 4:10, 4:10].set(1)
# {name: (function of two maps, the shapes of these)}
ATTENTIONS = {
  'region affinity': (lambda x, y: region_affinity.region_affinity(x), (8, 8, 4), (1,)),
  'transfer': (lambda x, y: region_affinity.transfer(x, y), (4, 4, 6), (8, 8, 3)),
  'transfer, blocks': (
    lambda x, y: region_affinity.transfer(x, y, form='blocks'),
    (4, 4, 6),
    (8, 8, 3),
  ),
  'between levels': (lambda x, y: level_attention.fill(x, y, MASK), (4, 4, 6), (8, 8, 3)),
  'between levels, blocks': (
    lambda x, y: level_attention.fill(x, y, MASK, form='blocks'),
    (4, 4, 6),
    (8, 8, 3),
  ),
  'to itself': (self_attention.attend, (4, 4, 6), (4, 4, 5)),
  'to itself, blocks': (
    lambda x, y: self_attention.attend(x, y, form='blocks'),
    (4, 4, 6),
    (4, 4, 5),
  ),
  'contextual': (
    lambda x, y: contextual_attention.contextual_attention(x, y, jnp.ones((2, 16)))[0],
    (8, 8, 4),
    (8, 8, 4),
  ),
  'knowledge': (lambda x, y: recurrent(x, 'plain'), (4, 4, 6), (1,)),
  'knowledge, blocks': (lambda x, y: recurrent(x, 'blocks'), (4, 4, 6), (1,)),
}


def recurrent(x, form):
  """Two steps, of which the second reads the first one's memory."""
  memory = knowledge_attention.empty(x.shape, 2, form)
  known = 1 - MASK[:, ::4, ::4]
  y, memory = knowledge_attention.attend(x, known, memory, jnp.ones(1))
  return knowledge_attention.attend(y.astype(x.dtype), known, memory, jnp.ones(1))[0]


def loss_of(name):
  function = ATTENTIONS[name][0]
  return lambda x, y: jnp.square(function(x, y).astype(jnp.float32)).mean()


@pytest.mark.parametrize('name', ATTENTIONS)
def test_no_product_of_an_attention_is_float32_where_its_maps_are_bfloat16(name):
  _, *shapes = ATTENTIONS[name]
  maps = [jax.ShapeDtypeStruct((2, *s), jnp.bfloat16) for s in shapes]
  trace = jax.make_jaxpr(jax.value_and_grad(loss_of(name), (0, 1)))(*maps)
  found = list(operations.products(trace))
  # Scores and what they mix, and at least three products of the gradient.
  assert len(found) >= 5
  exact = [p.place for p in found if 'float32' in p.dtypes]
  assert [x for x in exact if not x.startswith('arrays.py')] == [], 'but for resizing'


@pytest.mark.parametrize('name', ATTENTIONS)
def test_an_attention_in_bfloat16_is_that_in_float32_but_for_rounding(name):
  function, *shapes = ATTENTIONS[name]
  maps = [draw(2, *s, seed=i) for i, s in enumerate(shapes)]
  narrow = np.asarray(jax.jit(function)(*maps), np.float32)
  exact = np.asarray(jax.jit(function)(*(m.astype(jnp.float32) for m in maps)))
  # Operands have 8 bits. Scores reach 10 times a patch's length, about 50 here; a few roundings
  # of 2^-9 each move a weight by some hundredths.
  assert np.abs(narrow - exact).max() < 0.06 * max(np.abs(exact).max(), 1)
  assert np.abs(narrow - exact).max() > 0
