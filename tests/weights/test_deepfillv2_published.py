"""DeepFill v2's published files through the import: TensorFlow's and both of the port's."""

import goldens
import numpy as np
import pytest
import tensorflow_bytes
from torch_bytes import Raw, emit, tensor, write_zip

from jaxinpaint import systems
from jaxinpaint.systems.deepfillv2 import published
from jaxinpaint.weights import importer, mapping, store


def case_of(name):
  return next(c for c in goldens.all_cases() if c.name == name)


def write(path, states):
  """A file of {key: state dict}."""
  storages, content = {}, {}
  for key, state in states.items():
    tensors = {}
    for name, array in state.items():
      array, place = np.ascontiguousarray(array, '<f4'), str(len(storages))
      stride = tuple(s // 4 for s in array.strides)
      tensors[name] = tensor(place, array.size, array.shape, stride)
      storages[place] = array.tobytes()
    content[key] = Raw(emit(tensors))
  write_zip(path, emit(content), storages)
  return path


def load(path, out):
  return store.load(importer.import_file(systems.published('deepfillv2'), path, out))


def official_state():
  """The official variables of both networks, and some of an optimizer."""
  case, critic = (case_of(f'deepfillv2_{n}') for n in ('generator_official_tf', 'discriminator_tf'))
  names, move = case.manifest()['tf_names'], (2, 3, 1, 0)
  of = lambda v: v.transpose(move) if v.ndim == 4 else v
  found = {'beta1_power': np.float32(0.5), 'inpaint_net/conv1/bias/Adam': np.zeros(48)}
  found |= {names[k]: of(v) for k, v in case.state().items()}
  theirs = {'weight': 'kernel', 'bias': 'bias', 'weight_u': 'kernel_sn/u'}
  for key, value in critic.state().items():
    layer, _, kind = key.split('.')
    value = value.T if kind == 'weight_u' else of(value)
    found[f'discriminator/sn_patch_gan/{layer}/{theirs[kind]}'] = value
  return found


def test_a_tensorflow_checkpoint_with_its_critic(tmp_path):
  state = official_state()
  stored = load(tensorflow_bytes.write(tmp_path, state, 'snap-0'), tmp_path / 'out')
  assert set(stored.params) == {'generator', 'critic'}
  assert stored.config.model.channel_order == 'bgr' and stored.config.model.padding == 'same'
  got = stored.params['generator']['refine']['allconv13_upsample']['conv']['kernel']
  want = state['inpaint_net/allconv13_upsample/allconv13_upsample_conv/kernel']
  np.testing.assert_array_equal(got, want)
  got = stored.stats['critic']['spectral']['conv4']['u']
  np.testing.assert_array_equal(got, state['discriminator/sn_patch_gan/conv4/kernel_sn/u'][0])
  del state['inpaint_net/pmconv9/bias']
  prefix = tensorflow_bytes.write(tmp_path, state, 'snap-2')
  with pytest.raises(mapping.MappingError, match='inpaint_net/pmconv9/bias'):
    importer.import_file(
      systems.published('deepfillv2'), prefix, tmp_path / 'other', format='tensorflow'
    )
  assert not list(tmp_path.glob('other*'))


@pytest.mark.parametrize(
  ('format', 'generator', 'critic'),
  [
    ('pytorch_converted', 'deepfillv2_generator_tf', 'deepfillv2_discriminator_tf'),
    ('pytorch', 'deepfillv2_generator', 'deepfillv2_discriminator'),
  ],
)
def test_the_ports_files_are_told_apart(tmp_path, format, generator, critic):
  states = {'G': case_of(generator).state(), 'D': case_of(critic).state()}
  stored = load(write(tmp_path / 'states.pth', states), tmp_path / 'out')
  assert stored.meta['source']['format'] == format
  assert set(stored.params) == {'generator', 'critic'}
  model = stored.config.model
  wanted = published.PORT if format == 'pytorch' else {'padding': 'same', 'mask_steps': 2}
  assert {k: model[k] for k in wanted} == wanted and model.fuse and model.channel_order == 'rgb'
  np.testing.assert_array_equal(
    stored.stats['critic']['spectral']['conv2']['u'], states['D']['conv2.conv_sn.weight_u'][:, 0]
  )


def test_a_file_of_another_system_is_refused_with_its_keys(tmp_path):
  other = case_of('deepfillv1_generator').state()
  path = write(tmp_path / 'gen.pt', {'G': other})
  with pytest.raises(mapping.MappingError, match="not give the weights of 'deepfillv2'") as error:
    load(path, tmp_path / 'out')
  for key in ('coarse_generator.conv1.conv.weight', 'stage1.conv1.conv.weight'):
    assert key in str(error.value)
  assert not list(tmp_path.glob('out*'))
