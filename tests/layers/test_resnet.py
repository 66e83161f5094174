import goldens
import jax
import numpy as np

from jaxinpaint.layers.resnet import ResnetBlock
from jaxinpaint.weights import mapping


@goldens.cases('edgeconnect_resblock', 'edgeconnect_resblock_sn')
def test_block_and_gradients(case):
  data, state = case.data(), case.state()
  spectral_norm = 'conv_block.1.weight_orig' in state
  entries = ()
  for key, name in (('conv_block.1', 'conv1'), ('conv_block.5', 'conv2')):
    if spectral_norm:
      entries += mapping.sn_conv(key, 'net', (name,), bias=False)
    else:
      entries += mapping.conv(key, 'net', (name,))
  tree = mapping.convert(state, entries)
  params, stats = tree['params']['net'], tree['stats'].get('net', {})
  x, weights = goldens.nhwc(data['x']), goldens.nhwc(data['cotangent'])
  block = ResnetBlock(spectral_norm=spectral_norm)
  forward = lambda params, x: block.apply({'params': params, **stats}, x)

  def loss(params, x):
    out = forward(params, x)
    return (out * weights).sum(), out

  (gp, gx), out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
  goldens.assert_close(goldens.nchw(out), data['out'])
  goldens.assert_close(goldens.nchw(gx), data['grad_x'])
  got, want = np.transpose(gp['conv1']['kernel'], (3, 2, 0, 1)), data['grad_w']
  scale = np.abs(want).max()  # sums over all pixels, above a hundred: relative to the largest
  goldens.assert_close(got / scale, want / scale)
