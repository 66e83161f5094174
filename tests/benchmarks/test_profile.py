"""Kernels are told apart by what the compiled program says of them; their least time is right."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import profile, traces
from jaxinpaint.layers import conv

PLACES = {
  'plain': 'Net/conv_general_dilated',
  'forward': 'Net/convolution/dot_general',
  'input': 'transpose(jvp(Net))/convolution_input_gradient/convolution/dot_general',
  'weights': 'transpose(jvp(Net))/convolution_weight_gradient/while/body/dot_general',
  'attention': 'Net/attention/dot_general',
}
# As the CPU's compiler writes it, shortened.
TEXT = """HloModule jit_f, is_scheduled=true

%fused_computation.1 (p: f32[1,8,8,16]) -> f32[1,8,8,16] {
  %p = f32[1,8,8,16]{3,2,1,0} parameter(0)
  ROOT %tanh.1 = f32[1,8,8,16]{3,2,1,0} tanh(%p)
}

%fused_computation.2 (p.1: f32[1,8,8,16]) -> f32[1,8,8,16] {
  %p.1 = f32[1,8,8,16]{3,2,1,0} parameter(0)
  ROOT %reverse.1 = f32[1,8,8,16]{3,2,1,0} reverse(%p.1), dimensions={1}
}

%parallel.1 (p.2: f32[1,8,8,16]) -> f32[1,8,8,16] {
  %p.2 = f32[1,8,8,16]{3,2,1,0} parameter(0)
  ROOT %reverse.2 = f32[1,8,8,16]{3,2,1,0} fusion(%p.2), kind=kLoop, calls=%fused_computation.2
}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum.1 = f32[] add(%a, %b)
}

ENTRY %main.9 (x: f32[1,8,8,3], k: f32[3,3,3,16]) -> f32[16] {
  %x = f32[1,8,8,3]{3,2,1,0} parameter(0)
  %k = f32[3,3,3,16]{3,2,1,0} parameter(1)
  %zero = f32[] constant(0)
  %conv.1 = f32[1,8,8,16]{3,2,1,0} convolution(%x, %k), dim_labels=b01f_01io->b01f @plain
  %t.1 = f32[1,8,8,16]{3,2,1,0} fusion(%conv.1), kind=kLoop, calls=%fused_computation.1
  %c.1 = f32[1,8,8,16]{3,2,1,0} call(%t.1), to_apply=%parallel.1
  %r.1 = f32[1,8,8]{2,1,0} reduce(%c.1, %zero), dimensions={3}, to_apply=%add.1
  %w.1 = f32[9,16,3]{2,1,0} dot(%c.1, %x), lhs_contracting_dims={1,2} @weights
  %i.1 = f32[64,3]{1,0} dot(%c.1, %k), lhs_contracting_dims={3}, rhs_contracting_dims={3} @input
  %f.1 = f32[64,16]{1,0} dot(%x, %k), lhs_contracting_dims={3}, rhs_contracting_dims={2} @forward
  ROOT %a.1 = f32[1,16]{1,0} dot(%r.1, %c.1), lhs_contracting_dims={1,2} @attention
}
"""
for name, place in PLACES.items():
  TEXT = TEXT.replace(f' @{name}', f', metadata={{op_name="jit(f)/{place}"}}')


def test_what_a_kernel_does_is_read_from_the_program():
  found = profile.kernels(TEXT)
  kinds = {name: found[name].kind for name in ('conv.1', 't.1', 'c.1', 'r.1')}
  assert kinds == {
    'conv.1': 'convolution', 't.1': 'elementwise', 'c.1': 'move', 'r.1': 'reduction'
  }  # fmt: skip
  products = {name: found[name].kind for name in ('w.1', 'i.1', 'f.1', 'a.1')}
  assert products == {
    'w.1': 'weight gradient', 'i.1': 'input gradient', 'f.1': 'convolution', 'a.1': 'product'
  }  # fmt: skip
  assert found['conv.1'].place == 'jit(f)/Net/conv_general_dilated'
  # A product that was written anew has no place: its user has one.
  lost = TEXT.replace(f', metadata={{op_name="jit(f)/{PLACES["plain"]}"}}', '')
  called = 'calls=%fused_computation.1'
  lost = lost.replace(called, f'{called}, metadata={{op_name="convolution_input_gradient/pad"}}')
  assert profile.kernels(lost)['conv.1'].kind == 'input gradient'


def test_operations_and_bytes_of_a_kernel_are_counted():
  found = profile.kernels(TEXT)
  assert found['conv.1'].flops == 2 * 8 * 8 * 16 * 3 * 3 * 3
  assert found['conv.1'].bytes == 4 * (8 * 8 * 16 + 8 * 8 * 3 + 3 * 3 * 3 * 16)
  assert found['i.1'].flops == 2 * 64 * 3 * 16 and found['t.1'].flops == 0
  assert found['conv.1'].shape == 'f32[1,8,8,16]'
  kernel = profile.Kernel('product', '', '', flops=1000.0, bytes=50)
  assert kernel.least_seconds(flops=100.0, bandwidth=10.0) == 10
  assert kernel.least_seconds(flops=1000.0, bandwidth=10.0) == 5


def test_the_shares_are_of_all_kernels_and_bytes_are_told_from_operations():
  kernel = lambda kind, flops, size: profile.Kernel(kind, 'here', 'f32[1]', flops, size)
  known = {'a': kernel('convolution', 100.0, 1), 'b': kernel('product', 1.0, 40)}
  known['m'] = kernel('move', 0.0, 80)
  events = [traces.Event(n, n, s) for n, s in (('a', 2.0), ('a', 2.0), ('b', 4.0), ('m', 1.0))]
  events.append(traces.Event('?', 'not known', 1.0))
  found = profile.summary(events, known, calls=2, flops=100.0, bandwidth=20.0, top=2)
  assert found['seconds'] == 5.0
  assert found['kinds'] == pytest.approx(dict(convolution=0.4, product=0.4, move=0.1, other=0.1))
  # Twice a second of operations, once two seconds of bytes, of ten.
  assert found['least'] == pytest.approx(dict(convolution=0.2, product=0.2))
  assert found['of_bytes'] == pytest.approx(0.4)
  first, second = found['top']
  assert (first['name'], first['calls'], first['share']) == ('a', 1.0, pytest.approx(0.4))
  assert first['gflops'] == pytest.approx(50e-9) and second['gb_per_s'] == pytest.approx(10e-9)
  row = dict(system='x', what='grad', weights_mb=4.0, weights_seconds=0.2) | found
  lines = profile.table([row]).splitlines()
  cells = dict(zip(*[[c.strip() for c in lines[i].split('|')] for i in (0, 2)], strict=True))
  assert cells['matrix products'] == '40' and cells['in those bound by bytes'] == '40'
  assert cells['least of convolutions and products'] == '40' and 'reductions' not in cells


def test_the_kernels_of_a_real_trace_are_found(tmp_path):
  x, k = jnp.ones((1, 32, 32, 32)), jnp.ones((3, 3, 32, 32))
  loss = lambda x, k: jnp.tanh(conv.conv2d(x, k, padding=1, form='cpu')).sum()
  compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, k).compile()
  jax.block_until_ready(compiled(x, k))
  with jax.profiler.trace(tmp_path):
    jax.block_until_ready(compiled(x, k))
  events, known = traces.read(tmp_path), profile.kernels(compiled.as_text())
  assert {e.operation for e in events} <= known.keys()
  found = profile.summary(events, known, 1, 1e9, 1e9)
  assert {'convolution', 'input gradient', 'weight gradient'} <= found['kinds'].keys()
  assert sum(found['kinds'].values()) == pytest.approx(1)
  flops = {kind: sum(known[e.operation].flops for e in events if known[e.operation].kind == kind)
           for kind in ('convolution', 'input gradient', 'weight gradient')}  # fmt: skip
  assert flops == pytest.approx(dict.fromkeys(flops, 2 * 32**2 * 9 * 32**2), rel=0.05)


def test_the_file_has_the_rows_and_what_made_them(tmp_path, monkeypatch, capsys):
  row = dict(system='csa', what='grad', seconds=1.0, kinds={'move': 1.0}, least={}, of_bytes=0.0)
  row |= dict(weights_mb=1.0, weights_seconds=0.1, flops=1e9, bandwidth=1e9, top=[])
  monkeypatch.setattr(profile, 'profile', lambda *args, **options: row)
  profile.main(['--systems', 'csa', '--what', 'grad', '--json', str(tmp_path / 'a.json')])
  page = json.loads((tmp_path / 'a.json').read_text())
  assert page['rows'] == [row] and page['batch'] == 1 and 'commit' in page
  assert '| csa grad | 1000 | 100 |' in capsys.readouterr().out
