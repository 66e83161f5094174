"""pix2pix's checkpoints of TensorFlow through the import."""

import json

import numpy as np
import pytest
import tensorflow_bytes

from jaxinpaint import systems
from jaxinpaint.systems.pix2pix import published
from jaxinpaint.weights import importer, mapping, store


def narrow_state():
  """What the code would save of networks with widths 2 and 3."""
  config = systems.default_config('pix2pix')
  config.model.update(dict(width=2, discriminator_width=3))
  shapes = systems.make_recipe(config).shapes()
  rng = np.random.default_rng(0)
  draw = lambda tree: {
    k: draw(v) if isinstance(v, dict) else rng.normal(size=v.shape).astype(np.float32)
    for k, v in tree.items()
  }
  state = mapping.export(
    {'params': draw(dict(shapes.params)), 'stats': {}}, published.entries(config.model)
  )
  for key in [k for k in state if k.endswith('/gamma')]:
    for name in ('moving_mean', 'moving_variance'):
      state[key.replace('gamma', name)] = np.ones_like(state[key])
  slot = 'generator_train/generator/encoder_1/conv2d/bias'
  others = (f'{slot}/Adam', f'{slot}/Adam_1', 'discriminator_train/beta1_power', 'global_step')
  return state | {name: np.zeros(1, np.float32) for name in others}


def test_a_checkpoint_with_its_options(tmp_path):
  state = narrow_state()
  prefix = tensorflow_bytes.write(tmp_path, state, 'model-200000')
  options = tmp_path / 'options.json'
  options.write_text(json.dumps(dict(ngf=2, ndf=3, separable_conv=False, which_direction='AtoB')))
  stored = store.load(
    importer.import_file(systems.published('pix2pix'), [prefix, options], tmp_path / 'out')
  )
  assert set(stored.params) == {'generator', 'discriminator'}
  assert (stored.config.model.width, stored.config.model.discriminator_width) == (2, 3)
  got = stored.params['generator']['decoder7']['kernel']
  want = state['generator/decoder_7/conv2d_transpose/kernel']
  np.testing.assert_array_equal(got, want.swapaxes(2, 3))
  got = stored.params['generator']['encoder8_bn']['bias']
  np.testing.assert_array_equal(got, state['generator/encoder_8/batch_normalization/beta'])


@pytest.mark.parametrize(
  'content, message',
  [(dict(ngf=2, ndf=3, separable_conv=True), 'says separable_conv'), (dict(mode='a'), 'no "ngf"')],
)
def test_options_of_other_networks_are_refused(content, message):
  with pytest.raises(mapping.MappingError, match=message):
    published.settings(content)


def test_a_file_of_another_system_is_refused_with_its_keys(tmp_path):
  state = {'inpaint_net/conv1/kernel': np.zeros((5, 5, 5, 2))}
  prefix = tensorflow_bytes.write(tmp_path, state, 'snap-1')
  with pytest.raises(mapping.MappingError) as error:
    importer.import_file(systems.published('pix2pix'), prefix, tmp_path / 'out')
  assert 'inpaint_net/conv1/kernel' in str(error.value) and 'generator/' in str(error.value)
  assert not list(tmp_path.glob('out*'))
