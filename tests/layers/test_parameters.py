"""Parameters are those of Flax, drawn once and checked when given."""

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers.parameters import parameter


class Scaled(nn.Module):
  own: bool

  @nn.compact
  def __call__(self, x):
    make = parameter if self.own else nn.Module.param
    return x * make(self, 'scale', nn.initializers.normal(1.0), (x.shape[-1],), jnp.float32)


class Twice(nn.Module):
  """One module called twice, in another."""

  own: bool

  @nn.compact
  def __call__(self, x):
    inner = Scaled(self.own, name='inner')
    return inner(inner(x))


def test_first_values_and_results_are_those_of_flax():
  x = np.ones((2, 3), np.float32)
  ours, theirs = (Twice(own).init_with_output(jax.random.key(1), x) for own in (True, False))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  assert not np.allclose(ours[0], 1)


def test_a_given_parameter_is_not_drawn():
  drawn = []
  init = lambda key, shape, dtype: drawn.append(shape) or jnp.zeros(shape, dtype)

  class Counted(nn.Module):
    @nn.compact
    def __call__(self):
      return parameter(self, 'scale', init, (3,))

  given = {'params': {'scale': np.arange(3, dtype=np.float16)}}
  np.testing.assert_array_equal(Counted().apply(given), given['params']['scale'])
  assert not drawn
  Counted().init(jax.random.key(0))
  assert drawn == [(3,)]


@pytest.mark.parametrize('own', [True, False])
def test_another_shape_is_refused_as_by_flax(own):
  given = {'params': {'inner': {'scale': np.zeros(4, np.float32)}}}
  said = r'parameter "scale" in "/inner".*\(3,\).*\(4,\)'
  with pytest.raises(flax.errors.ScopeParamShapeError, match=said):
    Twice(own).apply(given, np.ones((2, 3), np.float32))


@pytest.mark.parametrize('own', [True, False])
def test_a_parameter_that_is_not_there_is_named(own):
  with pytest.raises(flax.errors.ScopeParamNotFoundError, match='scale'):
    Twice(own).apply({'params': {'inner': {'bias': 0}}}, np.ones((2, 3), np.float32))
