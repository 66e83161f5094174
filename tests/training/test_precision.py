"""What stays float32 when config.dtype is bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from jaxinpaint import systems
from jaxinpaint.losses import adversarial
from jaxinpaint.training import config as config_lib
from jaxinpaint.training import optimizers, state, step

# exp and log: softmax and the cross-entropies. rsqrt and sqrt: statistics, norms of gradients and
# of spectral norm, slopes of penalties. fft. Activations have primitives of their own (logistic,
# tanh, expm1); jax 0.12 derives expm1 as exp of the same array: the slope of ELU is no softmax.
SENSITIVE = ('exp', 'exp2', 'log', 'log1p', 'rsqrt', 'sqrt', 'fft', 'cumsum', 'erf_inv')
# (system, an operation that its step must contain)
SYSTEMS = (
  ('deepfillv1', 'exp'),
  ('misf', 'rsqrt'),
  ('glcic', 'log1p'),
  ('mesff', 'rsqrt'),
  ('pennet', 'exp'),
  ('pluralistic', 'exp'),
  ('gmcnn', 'sqrt'),
  ('rfr', 'exp'),
  ('mat', 'exp'),
  ('lama', 'fft'),
  ('migan', 'rsqrt'),
  ('comodgan', 'rsqrt'),
)


def equations(jaxpr):
  """All of a jaxpr, those of loops, branches and calls too."""
  for equation in jaxpr.eqns:
    yield equation
    for parameter in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
    ):
      if isinstance(parameter, core.ClosedJaxpr):
        yield from equations(parameter.jaxpr)
      elif isinstance(parameter, core.Jaxpr):
        yield from equations(parameter)


def dtypes(equation):
  return {str(v.aval.dtype) for v in equation.invars if hasattr(v.aval, 'dtype')}


def sensitive_in_bfloat16(closed):
  everything = list(equations(closed.jaxpr))
  activated = {e.invars[0] for e in everything if str(e.primitive) == 'expm1'}
  return [
    str(e.primitive)
    for e in everything
    if str(e.primitive) in SENSITIVE
    and 'bfloat16' in dtypes(e)
    and not (str(e.primitive) == 'exp' and e.invars[0] in activated)
  ]


def config_of(system, dtype='bfloat16'):
  config = config_lib.quicktest(config_lib.base(system))
  with config.unlocked():
    config.dtype = dtype
  for name in ('perceptual', 'style'):
    if name in config.loss:  # VGG's weights are a download
      config.loss[name] = 0.0
  return config


def steps_of(config):
  """{plan: jaxpr of its step}, nothing compiled; no plan that another contains."""
  recipe = systems.make_recipe(config)
  txs = {n: optimizers.make_optimizer('adam', 1e-4) for n in recipe.optimizers}
  rows, size = 2, config.data.size
  batch = {
    'image': jax.ShapeDtypeStruct((rows, size, size, 3), np.uint8),
    'mask': jax.ShapeDtypeStruct((rows, size, size, 1), np.uint8),
    'id': jax.ShapeDtypeStruct((rows,), np.int32),
  }
  blank = jax.tree.map(lambda s: jnp.zeros((1, *s.shape[1:]), s.dtype), batch)
  blank['image'], blank['mask'] = (blank[k].astype(np.float32) for k in ('image', 'mask'))
  begin = jax.eval_shape(lambda k: state.create(recipe, txs, (), k, blank), jax.random.key(0))
  take = step.make_train_step(recipe, txs)
  plans = {recipe.plan(s) for s in range(recipe.steps or config.training.steps)}
  more = lambda a, b: a.phase == b.phase and set(a.updates) > set(b.updates)
  plans = [p for p in plans if not any(more(other, p) for other in plans)]
  return {
    plan: jax.make_jaxpr(lambda *a, plan=plan: take(*a, plan))(begin, {}, batch, jax.random.key(0))
    for plan in plans
  }


@pytest.mark.parametrize(('system', 'contains'), SYSTEMS)
def test_nothing_sensitive_of_a_step_runs_in_bfloat16(system, contains, monkeypatch):
  critics, penalty = [], adversarial.gradient_penalty

  def spied(critic, real, fake, *args, **kwargs):
    jaxpr = jax.make_jaxpr(critic)(jnp.zeros(real.shape, jnp.float32))
    critics.append({d for e in equations(jaxpr.jaxpr) for d in dtypes(e)})
    return penalty(critic, real, fake, *args, **kwargs)

  monkeypatch.setattr(adversarial, 'gradient_penalty', spied)
  found = steps_of(config_of(system))
  for plan, jaxpr in found.items():
    assert sensitive_in_bfloat16(jaxpr) == [], plan
  # The step is one of mixed precision, and holds what was looked for.
  everything = [e for j in found.values() for e in equations(j.jaxpr)]
  # Of MI-GAN all convolutions are products of matrices on a CPU.
  products = [e for e in everything if str(e.primitive) in ('conv_general_dilated', 'dot_general')]
  assert sum('bfloat16' in dtypes(e) for e in products) >= 10
  assert contains in {str(e.primitive) for e in everything}
  # The critics of a gradient penalty are float32, of the picture and of its hole.
  assert len(critics) >= 2 or system not in ('deepfillv1', 'gmcnn')
  assert all('bfloat16' not in found for found in critics)
  # What an update returns and keeps is float32: losses, parameters, moments.
  for jaxpr in found.values():
    assert 'bfloat16' not in {str(v.aval.dtype) for v in jaxpr.jaxpr.outvars}


def test_the_search_finds_what_it_should():
  x = jnp.ones((4, 4), jnp.bfloat16)
  assert 'exp' in sensitive_in_bfloat16(jax.make_jaxpr(jax.nn.softmax)(x))
  looped = jax.make_jaxpr(lambda x: jax.lax.map(lambda r: jax.lax.rsqrt(r), x))(x)
  assert sensitive_in_bfloat16(looped) == ['rsqrt']


@pytest.mark.slow
def test_a_hundred_steps_of_wgan_gp_in_bfloat16_stay_finite(tmp_path):
  from jaxinpaint.training import loop

  config = config_of('deepfillv1')
  with config.unlocked():
    for name in ('generator', 'critic'):
      config.optimizers[name] = dict(name='adam', learning_rate=1e-4, b1=0.5, b2=0.9)
  config.data.update(dict(size=64, batch_size=2, masks='box'))
  config.phases.update(dict(coarse=0, joint=-1))
  config.training.update(dict(steps=100, log_every=1, sample_every=0, evaluate_every=0, nan='stop'))
  config.training.mesh.data = 1
  config.checkpoint.update(dict(every=100, best=''))
  last = loop.train(config, tmp_path)
  assert int(last.step) == 100
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(last.params)))
  lines = (tmp_path / 'metrics.jsonl').read_text()
  assert lines.count('penalty_local') == 100 and 'nan' not in lines and 'inf' not in lines
