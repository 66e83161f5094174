import goldens

from jaxinpaint.layers.kernel_prediction import Basic
from jaxinpaint.weights import mapping


@goldens.cases('jpgnet_basic', 'jpgnet_basic_att')
def test_basic(case):
  data, state = case.data(), case.state()
  names = {'conv1.0': 'conv1', 'conv1.2': 'conv2', 'conv1.4': 'conv3'}
  attention = 'att_c.0.weight' in state
  if attention:
    names |= {'att_c.0': 'channel1', 'att_c.2': 'channel2', 'att_s.0': 'spatial'}
  entries = [e for key, name in names.items() for e in mapping.conv(key, 'net', (name,))]
  params = mapping.convert(state, entries)['params']['net']
  block = Basic(data['out'].shape[1], attention, attention)
  got = block.apply({'params': params}, goldens.nhwc(data['x']))
  goldens.assert_close(goldens.nchw(got), data['out'])
