import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.layers import in_turn as module
from jaxinpaint.layers.in_turn import in_turn
from jaxinpaint.layers.resnet import ResnetBlock


class Body(nn.Module):
  blocks: int = 3
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    names = [f'body{i}' for i in range(self.blocks)]
    return in_turn(self, ResnetBlock, names, x, remat=self.remat, dilation=1)


def draw(*shape):
  return jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize('blocks', [0, 1, 3])
@pytest.mark.parametrize('remat', [False, True])
def test_the_loop_gives_what_separate_blocks_give(blocks, remat, monkeypatch):
  x, body = draw(2, 6, 6, 4), Body(blocks, remat)
  variables = jax.jit(body.init)(jax.random.key(0), x)
  assert set(variables.get('params', {})) == {f'body{i}' for i in range(blocks)}

  def found(form):
    monkeypatch.setattr(module, 'default_form', lambda: form)
    loss = lambda variables, x: jnp.tanh(body.apply(variables, x)).sum()
    run = jax.jit(jax.value_and_grad(loss, (0, 1)))
    text = run.lower(variables, x).as_text()
    return jax.tree.leaves(run(variables, x)), 'stablehlo.while' in text

  (loop, has_loop), (apart, has_none) = found('cpu'), found('plain')
  assert has_loop == (remat and blocks > 1) and not has_none
  # A bias before an instance norm has a gradient of rounding alone: one scale for all.
  scale = max(np.abs(want).max() for want in apart)
  for got, want in zip(loop, apart, strict=True):
    np.testing.assert_allclose(got, want, atol=1e-5 * scale)


def test_blocks_recomputed_in_the_loop_take_less_memory():
  x = jnp.zeros((1, 32, 32, 16))

  def temporary(remat):
    body = Body(6, remat)
    variables = jax.eval_shape(body.init, jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda variables: body.apply(variables, x).sum()))
    return gradient.lower(variables).compile().memory_analysis().temp_size_in_bytes

  assert temporary(True) < 0.6 * temporary(False)
