"""Key maps: layouts against hand-placed numbers, and what is said when keys do not fit."""

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxinpaint.weights import layouts, mapping
from jaxinpaint.weights.mapping import MappingError

ENTRIES = (
  *mapping.conv('a.1', 'generator', ('first', 'conv')),
  *mapping.conv_transpose('b', 'generator', ('up',), bias=False),
  *mapping.dense('c', 'generator', ('head',)),
  *mapping.norm('n', 'generator', ('norm',), statistics=True),
  *mapping.sn_conv('d', 'discriminator', ('conv1',), bias=False),
)


def _state():
  rng = np.random.default_rng(0)
  shapes = {
    'a.1.weight': (5, 2, 3, 4),  # out, in, kh, kw
    'a.1.bias': (5,),
    'b.weight': (2, 5, 3, 4),  # in, out, kh, kw
    'c.weight': (7, 6),
    'c.bias': (7,),
    'n.weight': (5,),
    'n.bias': (5,),
    'n.running_mean': (5,),
    'n.running_var': (5,),
    'd.weight_orig': (4, 3, 2, 2),
    'd.weight_u': (4,),
    'd.weight_v': (12,),
  }
  return {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def test_layouts():
  state = _state()
  tree = mapping.convert(state, ENTRIES)
  generator = tree['params']['generator']
  conv = generator['first']['conv']['kernel']
  assert conv.shape == (3, 4, 2, 5)
  assert conv[2, 3, 1, 4] == state['a.1.weight'][4, 1, 2, 3]
  up = generator['up']['kernel']
  assert up.shape == (3, 4, 2, 5)
  assert up[2, 3, 1, 4] == state['b.weight'][1, 4, 2, 3]
  assert generator['head']['kernel'][5, 6] == state['c.weight'][6, 5]
  np.testing.assert_array_equal(generator['first']['conv']['bias'], state['a.1.bias'])
  np.testing.assert_array_equal(generator['norm']['scale'], state['n.weight'])
  statistics = tree['stats']['generator']['batch_stats']['norm']
  np.testing.assert_array_equal(statistics['mean'], state['n.running_mean'])
  np.testing.assert_array_equal(statistics['var'], state['n.running_var'])
  assert list(tree['params']['discriminator']['conv1']) == ['kernel']
  spectral = tree['stats']['discriminator']['spectral']['conv1']
  np.testing.assert_array_equal(spectral['u'], state['d.weight_u'])
  np.testing.assert_array_equal(spectral['v'], state['d.weight_v'])


UNIT_LAYOUTS = {
  # layout: (PyTorch's shape, ours, the place of one element in each)
  'modulated_conv_turned': ((1, 5, 2, 3, 4), (3, 4, 2, 5), (0, 4, 1, 2, 3), (0, 0, 1, 4)),
  'modulated_conv': ((1, 5, 2, 3, 4), (3, 4, 2, 5), (0, 4, 1, 2, 3), (2, 3, 1, 4)),
  'pointwise': ((5, 2, 1, 1), (2, 5), (4, 0, 0, 0), (0, 4)),
  'picture': ((1, 2, 3, 4), (3, 4, 2), (0, 1, 0, 3), (0, 3, 1)),
  'channels': ((1, 5, 1, 1), (5,), (0, 3, 0, 0), (3,)),
  'column': ((5, 1), (5,), (3, 0), (3,)),
  'row': ((1, 5), (5,), (0, 3), (3,)),
}


@pytest.mark.parametrize('layout', layouts.UNIT_AXES)
def test_axes_of_length_one_are_dropped_and_come_back(layout):
  theirs, ours, there, here = UNIT_LAYOUTS[layout]
  array = np.arange(np.prod(theirs), dtype=np.float32).reshape(theirs)
  entries = (mapping.Entry('a', 'n', ('a',), layout),)
  tree = mapping.convert({'a': array}, entries)
  got = tree['params']['n']['a']
  assert got.shape == ours and got[here] == array[there]
  np.testing.assert_array_equal(mapping.export(tree, entries)['a'], array, strict=True)
  axis = layouts.UNIT_AXES[layout][0]
  with pytest.raises(MappingError, match='has 1 on axes'):
    mapping.convert({'a': np.repeat(array, 2, axis)}, entries)
  with pytest.raises(MappingError, match=f'a {layout} kernel has {len(theirs)} axes'):
    mapping.convert({'a': array[0]}, entries)


def test_turned_kernels_come_back():
  array = np.arange(120, dtype=np.float32).reshape(5, 2, 3, 4)
  entries = (mapping.Entry('a', 'n', ('a',), 'conv_turned'),)
  tree = mapping.convert({'a': array}, entries)
  got = tree['params']['n']['a']
  assert got.shape == (3, 4, 2, 5) and got[0, 2, 1, 4] == array[4, 1, 2, 1]
  np.testing.assert_array_equal(mapping.export(tree, entries)['a'], array, strict=True)


def test_export_is_the_inverse():
  state = _state()
  back = mapping.export(mapping.convert(state, ENTRIES), ENTRIES)
  assert back.keys() == state.keys()
  for key, want in state.items():
    np.testing.assert_array_equal(back[key], want, err_msg=key, strict=True)
  tree = mapping.convert(state, ENTRIES)
  del tree['params']['generator']['head']['bias']
  with pytest.raises(MappingError, match=r'params/generator/head/bias \(for c\.bias\)'):
    mapping.export(tree, ENTRIES)


def test_halves_become_float32_and_integers_stay():
  entries = (mapping.Entry('w', 'g', ('w',)), mapping.Entry('i', 'g', ('i',)))
  state = {'w': np.ones(2, ml_dtypes.bfloat16), 'i': np.ones(2, np.int64)}
  got = mapping.convert(state, entries)['params']['g']
  assert got['w'].dtype == np.float32
  assert got['i'].dtype == np.int64


def test_left_over_keys_of_both_sides_are_listed():
  state = _state()
  del state['c.bias'], state['d.weight_v']
  state |= {f'x.{i}': np.zeros(1) for i in range(20)}
  with pytest.raises(MappingError) as error:
    mapping.convert(state, ENTRIES)
  message = str(error.value)
  assert '20 in the file, but nothing here takes it' in message
  assert 'x.0' in message and 'x.19' not in message and '... and 8 more' in message
  assert '2 wanted here, but not in the file' in message
  assert 'c.bias' in message and 'd.weight_v' in message


def test_ignored_keys():
  state = _state() | {'conv_final.weight': np.zeros(1), 'n.num_batches_tracked': np.zeros(1)}
  with pytest.raises(MappingError, match=r'conv_final\.weight'):
    mapping.convert(state, ENTRIES)
  tree = mapping.convert(state, ENTRIES, ignore=(r'^conv_final\.',))
  assert 'conv_final' not in tree['params']['generator']


def test_module_prefix_goes_only_if_all_have_it():
  state = _state()
  mapping.convert({f'module.{k}': v for k, v in state.items()}, ENTRIES)
  state['module.c.bias'] = state.pop('c.bias')
  with pytest.raises(MappingError, match=r'module\.c\.bias'):
    mapping.convert(state, ENTRIES)


def _expected():
  tree = mapping.convert(_state(), ENTRIES)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_shapes_are_held_against_the_networks():
  expected = _expected()
  mapping.convert(_state(), ENTRIES, expected=expected)
  state = _state() | {'a.1.weight': np.zeros((5, 9, 3, 4))}
  with pytest.raises(MappingError) as error:
    mapping.convert(state, ENTRIES, expected=expected)
  assert 'params/generator/first/conv/kernel (from a.1.weight)' in str(error.value)
  assert '(3, 4, 9, 5) in the file, (3, 4, 2, 5) in the network' in str(error.value)
  with pytest.raises(MappingError, match='another rank'):
    mapping.convert(_state() | {'c.weight': np.zeros(3)}, ENTRIES)


def test_parameters_that_no_entry_fills_are_listed():
  expected = _expected()
  expected['params']['generator']['extra'] = {'bias': jax.ShapeDtypeStruct((1,), np.float32)}
  with pytest.raises(MappingError, match='nothing fills:\n    params/generator/extra/bias'):
    mapping.convert(_state(), ENTRIES, expected=expected)
  del expected['params']['generator']['extra'], expected['params']['generator']['up']
  with pytest.raises(MappingError, match='no such parameter:\n    params/generator/up/kernel'):
    mapping.convert(_state(), ENTRIES, expected=expected)


def test_a_network_alone_may_be_converted():
  entries = [e for e in ENTRIES if e.network == 'discriminator']
  state = {k: v for k, v in _state().items() if k.startswith('d.')}
  tree = mapping.convert(state, entries, expected=_expected())
  assert list(tree['params']) == ['discriminator']


def test_mistakes_in_a_key_map():
  with pytest.raises(ValueError, match='two entries read'):
    mapping.convert({}, ENTRIES[:1] * 2)
  clash = (mapping.Entry('c.weight', 'g', ('w',)), mapping.Entry('c.bias', 'g', ('w',)))
  with pytest.raises(ValueError, match='two entries write params/g/w'):
    mapping.convert({'c.weight': np.zeros(1), 'c.bias': np.zeros(1)}, clash)
  with pytest.raises(ValueError, match="layout 'OIHW' is not one of"):
    mapping.Entry('a', 'g', ('a',), 'OIHW')


def test_what_a_wrapper_puts_before_keys_is_found():
  state = ['model.net.a.weight', 'model.net.b', 'model.loss.b', 'other']
  assert mapping.find_prefix(state, ['b', 'a.weight']) == 'model.net.'
  # Not where a key is missing behind it, or in the middle of a name.
  for keys in (['b', 'c'], ['weight.b'], ['et.b', 'et.a.weight'], []):
    assert mapping.find_prefix(state, keys) is None
  assert mapping.find_prefix(state, ['other', 'b']) == ''
  with pytest.raises(
    mapping.MappingError, match=r'several times, below model\.loss\., model\.net\.'
  ):
    mapping.find_prefix(state, ['b'])
  # The one that most are behind
  assert mapping.find_prefix(state, ['b', 'a.weight', 'c'], whole=False) == 'model.net.'
  for keys in (['weight.b'], ['c'], []):
    assert mapping.find_prefix(state, keys, whole=False) is None
