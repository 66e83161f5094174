import goldens
import jax
import numpy as np

from jaxinpaint.layers.resnet import ResnetBlock
from jaxinpaint.weights import mapping


@goldens.cases('edgeconnect_resblock')
def test_block_and_gradients(case):
  data = case.data()
  entries = mapping.conv('conv_block.1', 'net', ('conv1',)) + mapping.conv(
    'conv_block.5', 'net', ('conv2',)
  )
  params = mapping.convert(case.state(), entries)['params']['net']
  x, weights = goldens.nhwc(data['x']), goldens.nhwc(data['cotangent'])
  forward = lambda params, x: ResnetBlock().apply({'params': params}, x)
  goldens.assert_close(goldens.nchw(forward(params, x)), data['out'])
  loss = lambda params, x: (forward(params, x) * weights).sum()
  gp, gx = jax.grad(loss, (0, 1))(params, x)
  goldens.assert_close(goldens.nchw(gx), data['grad_x'])
  got, want = np.transpose(gp['conv1']['kernel'], (3, 2, 0, 1)), data['grad_w']
  scale = np.abs(want).max()  # sums over all pixels, above a hundred: relative to the largest
  goldens.assert_close(got / scale, want / scale)
