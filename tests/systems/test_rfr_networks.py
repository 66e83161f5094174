"""The network of RFR against its code's own outputs."""

import goldens
import jax
import numpy as np
import pytest

from jaxinpaint.layers import knowledge_attention
from jaxinpaint.systems.rfr import networks, published
from jaxinpaint.weights import mapping


def variables(case, entries):
  tree = mapping.convert(case.state(), entries)
  return {'params': tree['params']['generator'], **tree['stats'].get('generator', {})}


def nhwc(data, *names):
  return tuple(goldens.nhwc(data[name]) for name in names)


@goldens.cases('rfr_kca')
@pytest.mark.parametrize('form', ['plain', 'blocks'])
def test_attention_of_two_steps(case, form):
  data = case.data()
  params = variables(case, published.attention_entries('', ()))
  layer = networks.Attention()

  @jax.jit
  def run(params, features, masks):
    memory, outputs = knowledge_attention.empty(features[0].shape, 2, form), []
    for f, m in zip(features, masks, strict=True):
      raw, _ = knowledge_attention.attend(f, m[:, ::4, ::4], memory, params['params']['ratio'])
      out, memory = layer.apply(params, f, m, memory)
      outputs.append((out, raw, memory.scores))
    return outputs

  outputs = run(params, nhwc(data, 'f1', 'f2'), nhwc(data, 'm1', 'm2'))
  for i, (out, raw, scores) in enumerate(outputs, start=1):
    goldens.assert_close(goldens.nchw(out), data[f'out{i}'], what=f'out{i}')
    goldens.assert_close(goldens.nchw(raw), data[f'raw{i}'], what=f'raw{i}')
    if scores is not None:
      shown = scores[:1].reshape(1, 12, 12, 144)[:, ::2, ::2]
      goldens.assert_close(goldens.nchw(shown), data[f'score{i}'], what=f'score{i}')


@goldens.cases('rfr_net', 'rfr_net_smaller_hole')
def test_generator(case):
  data = case.data()
  x, known = nhwc(data, 'x', 'mask')
  generator = networks.Generator(smaller_hole='smaller' in case.name)
  params = variables(case, published.generator_entries())
  found = jax.jit(generator.apply)(params, x, 1 - known[..., :1])
  goldens.assert_close(goldens.nchw(found['raw']), data['y'], what='raw')
  for i in (1, 6):
    module, attended = found['module'][i - 1][:1], found['attended'][i - 1][:1]
    goldens.assert_close(goldens.nchw(module)[:, :16], data[f'module_{i}'], what=f'module {i}')
    goldens.assert_close(goldens.nchw(attended)[:, :32], data[f'att_{i}'], what=f'attention {i}')
  masks = np.moveaxis(np.asarray(found['known'])[..., 0], 0, 1)
  goldens.assert_close(masks, data['mask_steps'], 0, what='masks')
