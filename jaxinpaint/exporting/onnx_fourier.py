"""Fourier transforms of a jax trace as products with matrices of cosines and sines.

ONNX has an operation DFT, but not every runtime does, and its real inverse came late. At the sizes
of a feature map (64 for a picture of 512 pixels) the products cost little beside a convolution.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinpaint.exporting.onnx_graph import Graph, Value

Parts = tuple[str, str]  # names of the real and the imaginary part


def transform(graph: Graph, p: Mapping[str, Any], x: Value) -> Parts | str:
  """lax.fft over the last axes.

  Args:
    graph: that gets the nodes.
    p: parameters of the operation.
    x: real for 'RFFT', else complex.

  Returns:
    The real and the imaginary part; of 'IRFFT' the real array.

  Raises:
    NotImplementedError: a length is not a number.
  """
  kind, lengths = p['fft_type'].name, p['fft_lengths']
  if not all(isinstance(n, int) for n in lengths):
    raise NotImplementedError('a Fourier transform of a length that is not fixed')
  axes = list(range(len(x.shape) - len(lengths), len(x.shape)))
  rank, last = len(x.shape), axes[-1]
  if kind == 'RFFT':
    n = lengths[-1]
    wave = _waves(n, n, n // 2 + 1)
    product = lambda by: _product(graph, graph.whole(x), by, last, rank)
    parts = product(wave.real), product(wave.imag)
    for axis, n in zip(axes[:-1], lengths[:-1], strict=True):
      parts = _complex_product(graph, parts, _waves(n, n, n), axis, rank)
    return parts
  assert x.imaginary is not None
  parts = graph.whole(x), graph.whole(x.imaginary)
  inverse = [(axis, np.conj(_waves(n, n, n)) / n) for axis, n in zip(axes, lengths, strict=True)]
  if kind == 'FFT':
    inverse = [(axis, np.conj(wave) * len(wave)) for axis, wave in inverse]
  if kind != 'IRFFT':
    for axis, wave in inverse:
      parts = _complex_product(graph, parts, wave, axis, rank)
    return parts
  for axis, wave in inverse[:-1]:
    parts = _complex_product(graph, parts, wave, axis, rank)
  n = lengths[-1]
  # The frequencies that are left out mirror those that are there, but for 0 and n / 2.
  twice = np.where((np.arange(n // 2 + 1) % (n / 2)) == 0, 1, 2)[:, None]
  wave = np.conj(_waves(n, n // 2 + 1, n)) * twice / n
  real = _product(graph, parts[0], wave.real, last, rank)
  return graph.add('Sub', real, _product(graph, parts[1], wave.imag, last, rank))


def _waves(n: int, rows: int, columns: int) -> np.ndarray:
  """complex128[rows,columns]: exp(-2 pi i r c / n)."""
  turns = np.outer(np.arange(rows), np.arange(columns)) % n  # exact before it is an angle
  return np.exp(-2j * np.pi * turns / n)


def _product(graph: Graph, x: str, matrix: np.ndarray, axis: int, rank: int) -> str:
  """Axis `axis` of x [..., m, ...] times [m,n]."""
  letters = 'abcdefgh'[:rank]
  result = letters[:axis] + 'z' + letters[axis + 1 :]
  stored = graph.stored(matrix.astype(np.float32))
  return graph.add('Einsum', x, stored, equation=f'{letters},{letters[axis]}z->{result}')


def _complex_product(graph: Graph, parts: Parts, matrix: np.ndarray, axis: int, rank: int) -> Parts:
  times = lambda part, by: _product(graph, part, by, axis, rank)
  real, imaginary = parts
  return (
    graph.add('Sub', times(real, matrix.real), times(imaginary, matrix.imag)),
    graph.add('Add', times(real, matrix.imag), times(imaginary, matrix.real)),
  )
