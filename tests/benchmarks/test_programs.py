"""What the reader of compiled programs counts, on texts written by hand and on real programs."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import programs
from jaxinpaint.layers import operations

# As the TPU's compiler writes it, shortened.
TEXT = """HloModule jit_step, is_scheduled=true

%fused.1 (x: bf16[8,16,16,64]) -> bf16[8,16,16,64] {
  %x = bf16[8,16,16,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %copy.9 = bf16[8,16,16,64]{0,3,2,1:T(8,128)(2,1)} copy(%x)
}

%fused.2 (x: bf16[8,16,16,64], k: bf16[3,3,64,128]) -> f32[8,16,16,128] {
  %x = bf16[8,16,16,64]{0,3,2,1:T(8,128)(2,1)} parameter(0)
  %k = bf16[3,3,64,128]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.3 = f32[8,16,16,128]{0,3,2,1:T(8,128)} convolution(%x, %k)
}

ENTRY %main.5 (x.1: bf16[8,16,16,64], k.1: bf16[3,3,64,128]) -> f32[8,100] {
  %x.1 = bf16[8,16,16,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k.1 = bf16[3,3,64,128]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %f.1 = bf16[8,16,16,64]{0,3,2,1:T(8,128)} fusion(%x.1), calls=%fused.1
  %f.2 = f32[8,16,16,128]{0,3,2,1:T(8,128)} fusion(%f.1, %k.1), calls=%fused.2
  %convert.4 = bf16[8,16,16,128]{0,3,2,1:T(8,128)(2,1)} convert(%f.2)
  %a.1 = f32[8,100]{1,0:T(8,128)} broadcast(%x.1), dimensions={}
  %b.1 = f32[100,100]{1,0:T(8,128)} broadcast(%x.1), dimensions={}
  %all-gather.1 = f32[8,100]{1,0:T(8,128)} all-gather(%a.1), dimensions={0}
  ROOT %dot.1 = f32[8,100]{1,0:T(8,128)} dot(%all-gather.1, %b.1)
}
"""


def test_a_program_is_counted():
  found = programs.read(TEXT)
  assert (found.convolutions, found.products) == (1, 1)
  assert found.float32 == 1, 'the convolution reads bfloat16, whatever it sums in'
  assert (found.moves, found.converts) == (1, 1), (
    'what is in the other fusion is no pass of its own'
  )
  assert found.moved_mb == pytest.approx(8 * 16 * 16 * 64 * 2 / 1e6)
  assert found.converted_mb == pytest.approx(8 * 16 * 16 * 128 * 2 / 1e6)
  assert found.gathered_mb == pytest.approx(8 * 100 * 4 / 1e6)


def test_equal_fusions_are_one_kernel():
  assert (programs.read(TEXT).fusions, programs.read(TEXT).kernels) == (2, 2)
  again = TEXT.replace('%dot.1', '%f.3 = bf16[8,16]{1,0} fusion(%x.1), calls=%fused.3\n  %dot.1')
  copy = TEXT[TEXT.index('%fused.1') : TEXT.index('%fused.2')].replace('%fused.1', '%fused.3')
  found = programs.read(
    again.replace('ROOT %f.3', '%f.3').replace('%fused.2 (', copy + '%fused.2 (', 1)
  )
  assert (found.fusions, found.kernels) == (3, 2), 'names make no other kernel'


def test_the_zeros_of_tiles_are_counted():
  assert programs.sizes('f32[8,100]{1,0:T(8,128)}') == [(3200, 4096)]
  assert programs.sizes('bf16[2,5,128]{2,0,1:T(8,128)(2,1)}') == [(2560, 2 * 8 * 5 * 128)]
  assert programs.sizes('(f32[3,4]{1,0}, s32[])') == [(48, 48), (4, 4)]


def test_a_program_of_this_machine_is_read():
  def function(x, k):
    y = jax.lax.conv_general_dilated(
      x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return y.reshape(2, -1) @ y.reshape(2, -1).T

  args = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
  found = programs.read(jax.jit(function).lower(*args).compile().as_text())
  assert found.convolutions == 1 and found.instructions > 3


def test_products_in_float32_are_found_with_the_line_that_asks():
  def function(x, y):
    exact = jnp.einsum('ab,cb->ac', x.astype(jnp.float32), x.astype(jnp.float32))
    return (y @ y.T).astype(jnp.float32).sum() + exact.sum()

  low = jax.ShapeDtypeStruct((4, 8), jnp.bfloat16)
  share, places = programs.islands(operations.plain_trace(function, low, low))
  assert share == pytest.approx(0.5)
  assert sum(places.values()) == pytest.approx(share)


def test_a_step_says_where_its_float32_products_are(tmp_path):
  rows = list(
    programs.traced_rows(
      ['mesff'], ['step'], jax.devices()[:1], dtype='bfloat16', batch=1, size=0, quick=True
    )
  )
  assert 0 < rows[0]['float32_share'] < 0.2, 'the Gram matrices and the spectral norms'
  assert any(place.startswith('layers/spectral_norm.py') for place in rows[0]['places'])


def test_the_file_has_the_rows_and_what_made_them(tmp_path, monkeypatch):
  made = [dict(system='mesff', what='step', size=256, float32_share=0.1, places={})]
  monkeypatch.setattr(programs, 'traced_rows', lambda *args, **config: iter(made))
  programs.main(['--trace', '--dtype', 'bfloat16', '--json', str(tmp_path / 'a.json')])
  page = json.loads((tmp_path / 'a.json').read_text())
  assert page['rows'] == made and page['compiled_for'] == '' and page['dtype'] == 'bfloat16'
  assert page['jax'] == jax.__version__ and 'commit' in page
