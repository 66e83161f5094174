"""DeepFill v1's published files through the import: TensorFlow's and both of the port's."""

import goldens
import numpy as np
import pytest
import tensorflow_bytes
from torch_bytes import Raw, emit, tensor, write_zip

from jaxinpaint import systems
from jaxinpaint.systems.deepfillv1 import published
from jaxinpaint.weights import importer, mapping, store


def state_of(name):
  """A case's weights, and TensorFlow's names for them where there are any."""
  case = next(c for c in goldens.all_cases() if c.name == name)
  return case.state(), case.manifest().get('tf_names')


def write(path, states):
  """A file of {key: state dict}, or with the key '' of the one state dict itself."""
  storages, content = {}, {}
  for key, state in states.items():
    tensors = {}
    for name, array in state.items():
      array, place = np.ascontiguousarray(array, '<f4'), str(len(storages))
      stride = tuple(s // 4 for s in array.strides)
      tensors[name] = tensor(place, array.size, array.shape, stride)
      storages[place] = array.tobytes()
    content[key] = Raw(emit(tensors))
  write_zip(path, content[''] if '' in content else emit(content), storages)
  return path


def tensorflow_state(*names):
  """The official variables, and some of the optimizers'."""
  move = {4: lambda v: v.transpose(2, 3, 1, 0), 2: lambda v: v.T, 1: lambda v: v}
  found = {'beta1_power': np.float32(0.5), 'inpaint_net/conv1/bias/Adam': np.zeros(32)}
  for name in names:
    state, theirs = state_of(name)
    found |= {theirs[k]: move[v.ndim](v) for k, v in state.items()}
  return found


def test_a_tensorflow_checkpoint_with_its_critics(tmp_path):
  names = ('deepfillv1_generator_official_tf', 'deepfillv1_discriminators_official_tf')
  state = tensorflow_state(*names)
  prefix = tensorflow_bytes.write(tmp_path, state, 'snap-1000000')
  stored = store.load(
    importer.import_file(systems.published('deepfillv1'), prefix, tmp_path / 'out')
  )
  assert set(stored.params) == {'generator', 'local_critic', 'global_critic'}
  assert stored.config.model.channel_order == 'bgr' and stored.config.model.padding == 'same'
  got = stored.params['generator']['refine']['allconv13_upsample']['kernel']
  want = state['inpaint_net/allconv13_upsample/allconv13_upsample_conv/kernel']
  np.testing.assert_array_equal(got, want)
  del state['inpaint_net/pmconv9/bias']
  prefix = tensorflow_bytes.write(tmp_path, state, 'snap-2')
  with pytest.raises(mapping.MappingError, match='inpaint_net/pmconv9/bias'):
    importer.import_file(
      systems.published('deepfillv1'), prefix, tmp_path / 'other', format='tensorflow'
    )
  assert not list(tmp_path.glob('other*'))


def test_the_files_that_the_port_trains(tmp_path):
  generator = state_of('deepfillv1_generator')[0]
  local = state_of('deepfillv1_local_discriminator')[0]
  whole = state_of('deepfillv1_global_discriminator')[0]
  files = [
    write(tmp_path / 'gen_00430000.pt', {'': generator}),
    write(tmp_path / 'dis_00430000.pt', {'localD': local, 'globalD': whole}),
  ]
  stored = store.load(
    importer.import_file(systems.published('deepfillv1'), files, tmp_path / 'both')
  )
  assert {k: stored.config.model[k] for k in published.PORT} == published.PORT
  assert stored.config.model.channel_order == 'rgb'
  for name, state in (('local_critic', local), ('global_critic', whole)):
    got = stored.params[name]['dense']['kernel']
    np.testing.assert_array_equal(got, state['linear.weight'].T)
  alone = store.load(
    importer.import_file(systems.published('deepfillv1'), files[0], tmp_path / 'alone')
  )
  assert set(alone.params) == {'generator'}


def test_weights_converted_by_the_port_are_the_official_networks(tmp_path):
  state = {f'netG.{k}': v for k, v in state_of('deepfillv1_generator')[0].items()}
  state['localD.linear.bias'] = np.zeros(1)
  path = write(tmp_path / 'torch_model.p', {'': state})
  stored = store.load(importer.import_file(systems.published('deepfillv1'), path, tmp_path / 'out'))
  assert stored.config.model.padding == 'same' and stored.config.model.channel_order == 'bgr'
  assert stored.meta['source']['format'] == 'pytorch_converted'


def test_a_file_of_another_system_is_refused_with_its_keys(tmp_path):
  path = write(tmp_path / 'gen.pt', {'': {'encoder.0.weight': np.zeros((1, 1, 3, 3))}})
  with pytest.raises(mapping.MappingError) as error:
    importer.import_file(systems.published('deepfillv1'), path, tmp_path / 'out')
  for key in ('encoder.0.weight', 'inpaint_net/conv1/kernel', 'netG.coarse_generator.conv1.conv'):
    assert key in str(error.value)
  assert not list(tmp_path.glob('out*'))
