import jax
import numpy as np
import pytest

from jaxinpaint import migrations, systems
from jaxinpaint.systems.ctsdg import networks, published


def parameters(**model):
  config = systems.default_config('ctsdg')
  config.model.update(model)
  made = systems.make_recipe(migrations.migrate(config, systems.default_config))
  shape = lambda *s: jax.ShapeDtypeStruct(s, np.float32)
  batch = dict(image=shape(1, 128, 128, 3), mask=shape(1, 128, 128, 1))
  variables = jax.eval_shape(made.init, jax.random.key(0), batch)
  return variables[0]['generator'], config.model


@pytest.mark.parametrize('switch, name, also', [('use_bigff', 'bigff', 0), ('use_cfa', 'cfa', 64)])
def test_a_part_that_is_off_has_no_parameters_and_no_entries(switch, name, also):
  full, _ = parameters()
  less, model = parameters(**{switch: False})
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  # Without CFA the next layer reads 64 channels fewer, too.
  assert count(full) - count(less) == count(full[name]) + also * 9 * 64
  found = {e.path for e in published.generator_entries(model) if e.collection == 'params'}
  flat = jax.tree_util.tree_leaves_with_path(less)
  assert found == {tuple(key.key for key in path) for path, _ in flat}


def test_batch_norms_of_the_generator_start_around_one():
  x = np.ones((1, 4, 4, 2), np.float32)
  layer = networks.PartialConvNorm(256, stride=2)
  variables = layer.init(jax.random.key(0), x, x[..., :1])
  scale = np.asarray(variables['params']['bn']['scale'])
  assert 0.015 < scale.std() < 0.025 and abs(scale.mean() - 1) < 0.01


def test_a_config_from_before_a_model_field_takes_its_default():
  config = systems.default_config('ctsdg')
  want, _ = parameters()
  del config.model['use_bigff'], config.model['use_cfa']
  shape = lambda *s: jax.ShapeDtypeStruct(s, np.float32)
  batch = dict(image=shape(1, 128, 128, 3), mask=shape(1, 128, 128, 1))
  made = systems.make_recipe(migrations.migrate(config, systems.default_config))
  got = jax.eval_shape(made.init, jax.random.key(0), batch)[0]['generator']
  assert jax.tree.structure(got) == jax.tree.structure(want)
  config.model.use_gff = True
  with pytest.raises(ValueError, match=r"config.model has no 'use_gff'"):
    systems.make_recipe(config)
