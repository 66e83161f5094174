"""The products of attention: operands in the type of the computation, sums in float32.

A matrix unit multiplies bfloat16 at many times the rate of float32 at full precision (989 and 67
TFLOP/s in an H200's data sheet), and adds in float32 in any case. Scores need those sums, because a
softmax of rounded scores is another one. They do not need operands with more bits than the
computation has.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Precision = lax.PrecisionLike


def einsum(
  spec: str, a: jax.Array, b: jax.Array, dtype: Any, precision: Precision = 'highest'
) -> jax.Array:
  """`jnp.einsum(spec, a, b)` of the arrays in `dtype`, summed in float32.

  In bfloat16 the gradient is rounded to bfloat16 too, before it is multiplied: otherwise the
  products of the backward pass would be of float32 arrays.

  Args:
    spec: as jnp.einsum's.
    a: of any type.
    b: likewise.
    dtype: of the computation.
    precision: of the products in float32.

  Returns:
    f32.
  """
  if jnp.dtype(dtype) == jnp.float32:
    return jnp.einsum(spec, a.astype(dtype), b.astype(dtype), precision=precision)
  return _narrow(spec, a.astype(dtype), b.astype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _forward(spec: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple]:
  return _narrow(spec, a, b), (a, b)


def _backward(spec: str, operands: tuple, cotangent: jax.Array) -> tuple:
  _, pull = jax.vjp(functools.partial(jnp.einsum, spec), *operands)
  return pull(cotangent.astype(operands[0].dtype))


_narrow.defvjp(_forward, _backward)
