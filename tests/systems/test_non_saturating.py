"""The losses that Co-Mod-GAN and MI-GAN share."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.recipe import Variables
from jaxinpaint.systems._shared import non_saturating


@pytest.mark.parametrize(('system', 'others'), [('comodgan', {}), ('migan', {'distillation': 0.0})])
def test_losses_by_hand(system, others, monkeypatch):
  rng = np.random.default_rng(2)
  mask = np.zeros((4, 16, 16, 1), np.float32)
  mask[:, 4:9, 3:12] = 1
  batch = dict(image=rng.random((4, 16, 16, 3), np.float32), mask=mask, id=np.arange(4))
  raw = jnp.asarray(rng.normal(size=batch['image'].shape), jnp.float32)
  real = 2 * batch['image'] - 1
  fake = np.where(mask > 0, raw, real)

  def judge(networks, name, variables, x):
    np.testing.assert_allclose(x[..., :1], 0.5 - mask)
    of_real = np.allclose(x[..., 1:], real, atol=1e-6)
    assert of_real or np.allclose(x[..., 1:], fake, atol=1e-6)
    return jnp.full((4, 1), 2.0 if of_real else -0.5)

  monkeypatch.setattr(non_saturating.modules, 'run', judge)
  config = systems.default_config(system).unlock()
  systems.module(system, 'recipe').quicktest(config)
  config.loss.update(l1=4.0, adversarial=0.5, **others)
  results = {
    u.name: u.loss(Variables({}, {}), {}, {'raw': raw}, batch, None)[1]['metrics']
    for u in systems.make_recipe(config).phases[0].updates[:2]
  }
  softplus = lambda x: np.log1p(np.exp(x))
  l1 = 4 * np.abs(fake - real).mean()
  want = dict(adversarial=0.5 * softplus(0.5), l1=l1, total=0.5 * softplus(0.5) + l1)
  assert {k: float(v) for k, v in results['generator'].items()} == pytest.approx(want, rel=1e-5)
  want = dict(real=softplus(-2.0), fake=softplus(-0.5), total=softplus(-2.0) + softplus(-0.5))
  assert {k: float(v) for k, v in results['critic'].items()} == pytest.approx(want, rel=1e-5)
