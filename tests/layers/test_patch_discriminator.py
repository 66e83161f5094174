import goldens
import jax
import jax.numpy as jnp
import numpy as np

from jaxinpaint.layers.patch_discriminator import PatchDiscriminator
from jaxinpaint.weights import mapping


@goldens.cases('edgeconnect_discriminator_edge', 'edgeconnect_discriminator_image')
def test_logits_and_features(case):
  data = case.data()
  entries = ()
  for i in range(1, 6):
    entries += mapping.sn_conv(f'conv{i}.0', 'net', (f'conv{i}',), bias=False)
  tree = mapping.convert(case.state(), entries)
  variables = {'params': tree['params']['net'], **tree['stats']['net']}
  apply = jax.jit(PatchDiscriminator().apply)
  logits, features = apply(variables, goldens.nhwc(data['x']))
  assert len(features) == 5
  np.testing.assert_array_equal(features[4], logits)
  goldens.assert_close(goldens.nchw(logits), data['logit'], what='logits')
  goldens.assert_close(goldens.nchw(jax.nn.sigmoid(logits)), data['out'], what='scores')
  goldens.assert_close(goldens.nchw(features[0])[:1, ::4], data['feat1_b0'], what='feature 1')
  goldens.assert_close(goldens.nchw(features[2])[:, ::2], data['feat3'], what='feature 3')
  goldens.assert_close(goldens.nchw(features[3])[:, ::4], data['feat4'], what='feature 4')


def test_parameters_and_logits_are_float32_under_bfloat16():
  net = PatchDiscriminator(width=4, dtype=jnp.bfloat16)
  (logits, features), variables = jax.eval_shape(
    lambda key, x: net.init_with_output(key, x, train=True),
    jax.random.key(0),
    jnp.ones((1, 64, 64, 3)),
  )
  assert logits.dtype == jnp.float32 and features[0].dtype == jnp.bfloat16
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert logits.shape == (1, 6, 6, 1)
  assert set(variables['params']['conv1']) == {'kernel'}
