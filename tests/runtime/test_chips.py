"""Whether chips are found by the names that jax gives them, and the table's own ratios."""

import pytest

from jaxinpaint.runtime import chips


@pytest.mark.parametrize(
  ('kind', 'dtype', 'teraflops', 'gib'),
  [
    ('NVIDIA H200', 'bfloat16', 989.4, 141),
    ('NVIDIA H200', 'float32', 494.7, 141),
    ('NVIDIA A100-SXM4-80GB', 'float32', 156, 80),
    ('TPU v5 lite', 'bfloat16', 197, 16),
    ('TPU v5', 'bfloat16', 459, 95),
    ('TPU v4', 'float32', 275, 32),
  ],
)
def test_chips_are_found_by_jaxs_names(kind, dtype, teraflops, gib):
  chip = chips.find(kind)
  assert chip.flops(dtype) == pytest.approx(teraflops * 1e12)
  assert chip.memory == gib * 2**30


@pytest.mark.parametrize(
  'kind', ['cpu', 'NVIDIA H2', 'TPU', '', 'NVIDIA GeForce RTX 4090 Laptop GPU']
)
def test_what_is_not_in_the_table_is_not_guessed(kind):
  assert chips.find(kind) is None


def test_figures_are_dense_and_of_one_device():
  for kind, chip in chips.CHIPS.items():
    # Matrix units are at most twice as fast in bfloat16 as in TF32: a sparse figure would be 4x.
    if chip.bfloat16 is not None:
      assert 1 <= chip.bfloat16 / chip.float32 <= 2.1, kind
    assert 10e9 <= chip.interconnect < chip.bandwidth < 1e13, kind
    assert 16 * 2**30 <= chip.memory <= 200 * 2**30, kind


def test_a_chip_without_bfloat16_has_no_figure_and_other_dtypes_are_refused():
  assert chips.find('Tesla T4').flops('bfloat16') is None
  with pytest.raises(ValueError, match='float16'):
    chips.find('NVIDIA L4').flops('float16')
