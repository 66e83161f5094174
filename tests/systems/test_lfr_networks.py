import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint.systems.lfr import networks, published
from jaxinpaint.weights import mapping


@goldens.cases('lfr_texture_generator')
def test_texture_generator(case):
  data = case.data()
  params = mapping.convert(case.state(), published.texture_entries())['params']['texture']
  image, hole = (goldens.nhwc(data[n]) for n in ('x', 'hole'))
  for name, levels in (('full', (6, 5, 4)), ('single', (6, 6, 6))):
    if f'y_{name}' not in data:
      continue
    texture = networks.Texture(attention_from=levels, attention_keys='clear')
    found = jax.jit(texture.apply)({'params': params}, (image + 1) / 2, hole)
    out = goldens.nchw(2 * found['out'] - 1)
    want = data[f'y_{name}']  # of a large picture the middle, and means of all of it
    top, left = ((out.shape[i] - want.shape[i]) // 2 for i in (2, 3))
    middle = out[:, :, top : top + want.shape[2], left : left + want.shape[3]]
    goldens.assert_close(middle, want, what=name)
    if f'pool_{name}' in data:
      means = data[f'pool_{name}']
      b, c, h, w = means.shape
      found_means = out.reshape(b, c, h, out.shape[2] // h, w, out.shape[3] // w).mean((3, 5))
      goldens.assert_close(found_means, means, what=f'{name}, means')
    for level in (1, 2, 3):
      got = goldens.nchw(found['filled'][level])[:, :8, :: 2 if level == 1 else 1]
      got = got[..., :: 2 if level == 1 else 1]
      goldens.assert_close(got, data[f'filled{level}_{name}'], what=f'{name} level {level}')


def test_parameter_count_and_sizes():
  shape = lambda *s: jax.ShapeDtypeStruct(s, np.float32)
  init = lambda side: jax.eval_shape(
    networks.Texture().init, jax.random.key(0), shape(1, side, 96, 3), shape(1, side, 96, 1)
  )
  assert sum(x.size for x in jax.tree.leaves(init(64))) == 6_722_723
  with pytest.raises(ValueError, match='40 x 96 must be multiples of 32'):
    init(40)
  with pytest.raises(ValueError, match='96 x 96 do not fit the critic, which is built for 64 x 64'):
    networks.Critic(64).init(jax.random.key(0), jnp.zeros((1, 96, 96, 3)))
