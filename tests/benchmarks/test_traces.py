"""Kernels are read from the traces of a GPU, a TPU and a CPU, each time counted once."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import traces


def named(kind, pid, name, tid=None):
  own = {} if tid is None else {'tid': tid}
  return {'ph': 'M', 'pid': pid, **own, 'name': kind, 'args': {'name': name}}


def ran(pid, tid, name, start, length, **args):
  return {'ph': 'X', 'pid': pid, 'tid': tid, 'name': name, 'ts': start, 'dur': length, 'args': args}


GPU = [
  named('process_name', 1, '/device:GPU:0'),
  named('thread_name', 1, 'Stream #13(Compute)', 7),
  named('thread_name', 1, 'XLA Modules', 8),
  {'ph': 'M', 'pid': 1, 'tid': 7, 'name': 'thread_sort_index', 'args': {'sort_index': 1}},
  named('process_name', 2, '/host:CPU'),
  named('thread_name', 2, 'python', 9),
  ran(1, 7, 'sm90_fprop', 0, 300, hlo_op='conv.1'),
  ran(1, 7, 'sm90_fprop', 300, 300, hlo_op='conv.2'),
  ran(1, 7, 'loop_add_fusion', 600, 200, hlo_op='fusion.1'),
  ran(1, 8, 'jit_train_step', 0, 800),
  ran(2, 9, 'PjitFunction', 0, 5000, hlo_op='no kernel'),
]
TPU = [
  named('process_name', 3, '/device:TPU:0'),
  named('thread_name', 3, 'XLA Ops', 1),
  named('thread_name', 3, 'Steps', 2),
  ran(3, 1, 'while.2', 0, 1000, hlo_category='while'),
  ran(3, 1, 'fusion.1', 100, 400, hlo_category='convolution fusion'),
  ran(3, 1, 'fusion.1', 500, 400, hlo_category='convolution fusion'),
  ran(3, 2, '0', 0, 1000),
]


def test_a_gpus_kernels_are_summed_by_name_and_other_lines_are_left_out():
  first, second = traces.top(traces.kernels(GPU), 10)
  assert (first.name, first.calls, first.operation) == ('sm90_fprop', 2, 'conv.1')
  assert first.seconds == pytest.approx(600e-6) and first.share == pytest.approx(0.75)
  assert (second.name, second.seconds) == ('loop_add_fusion', pytest.approx(200e-6))


def test_a_loops_time_is_without_its_body():
  found = {k.name: k for k in traces.top(traces.kernels(TPU), 10)}
  assert found['fusion.1'].seconds == pytest.approx(800e-6)
  assert found['while.2'].seconds == pytest.approx(200e-6)
  assert sum(k.share for k in found.values()) == pytest.approx(1)


def test_only_so_many_are_returned_the_largest_first():
  assert [k.name for k in traces.top(traces.kernels(GPU), 1)] == ['sm90_fprop']


def test_a_trace_without_kernels_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='gz below'):
    traces.read(tmp_path)
  with gzip.open(tmp_path / 'x.trace.json.gz', 'wt') as f:
    json.dump({'traceEvents': [e for e in GPU if e['pid'] == 1 and e['ph'] == 'M']}, f)
  with pytest.raises(ValueError, match='may this process profile it'):
    traces.read(tmp_path)


def test_jaxs_own_trace_is_read(tmp_path):
  run = jax.jit(lambda x: jnp.sort(jnp.tanh(x @ x), axis=0))
  x = jnp.ones((64, 64))
  run(x).block_until_ready()
  with jax.profiler.trace(tmp_path):
    for _ in range(3):
      run(x).block_until_ready()
  found = traces.top(traces.read(tmp_path), 10)
  assert found and sum(k.share for k in found) == pytest.approx(1)
  assert any('sort' in k.name and k.calls >= 3 for k in found)
