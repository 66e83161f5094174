"""Peak figures of chips, by the names that jax gives them: for MFU and for estimates.

All figures are for one device as jax counts devices, dense (no structured sparsity), from the
makers:
Google Cloud's pages on TPU v3, v4, v5e, v5p, v6e and TPU7x, with the links of v3 and v4 from Jouppi
et al., "TPU v4", ISCA 2023, table 4; NVIDIA's data sheets of each card (Tesla V100, T4, A10, A100,
L4, L40S, H100, H200, HGX B200; the A10G's by way of AWS) and the white papers of the GA102 and Ada
architectures for the RTX 3090 and 4090. On TPU v3 and TPU7x a device is half a chip: one core with
half of the memory. A GB of memory is 2^30 bytes, as the drivers count.

Only large matrix products reach these peaks: a share of the peak serves to compare runs, not to
grade them. CPUs are not in the table, because no peaks of several CPUs together are published.
"""

import dataclasses

import jax.numpy as jnp

_GB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device.

  Attributes:
    name: for people.
    bfloat16: FLOP/s of matrix products in bfloat16; None where the chip has no units for them.
    float32: FLOP/s of matrix products of float32 arrays at jax's default precision: TF32 on
      NVIDIA's chips from Ampere on, one pass of bfloat16 on TPUs, float32 on older chips.
    memory: bytes.
    bandwidth: bytes/s between the chip and its memory.
    interconnect: bytes/s that leave the device over all its links to other chips (the same number
      come in): ICI, NVLink, or PCIe where a card has nothing else.
  """

  name: str
  bfloat16: float | None
  float32: float
  memory: float
  bandwidth: float
  interconnect: float

  def flops(self, dtype: str) -> float | None:
    """FLOP/s of the dtype ('float32' or 'bfloat16'); None: the chip does not have it."""
    name = jnp.dtype(dtype).name
    if name not in ('bfloat16', 'float32'):
      raise ValueError(f"dtype {name!r} must be 'float32' or 'bfloat16'")
    return getattr(self, name)


def _tpu(name: str, tera: float, gb: float, bandwidth: float, links: float) -> Chip:
  return Chip(name, tera * 1e12, tera * 1e12, gb * _GB, bandwidth * 1e9, links * 1e9)


def _gpu(
  name: str, bfloat16: float | None, float32: float, gb: float, bandwidth: float, links: float
) -> Chip:
  half = bfloat16 and bfloat16 * 1e12
  return Chip(name, half, float32 * 1e12, gb * _GB, bandwidth * 1e9, links * 1e9)


_V5E = _tpu('TPU v5e', 197, 16, 819, 200)
_V5P = _tpu('TPU v5p', 459, 95, 2765, 600)
_V6E = _tpu('TPU v6e', 918, 32, 1638, 400)
_PCIE3, _PCIE4, _PCIE5 = 16, 32, 64  # GB/s each way of 16 lanes

# {jax.Device.device_kind: Chip}; TFLOP/s, GB, GB/s and GB/s each way.
CHIPS: dict[str, Chip] = {
  'TPU v3': _tpu('TPU v3 (one core)', 61.5, 16, 450, 140),
  'TPU v4': _tpu('TPU v4', 275, 32, 1200, 300),
  'TPU v5 lite': _V5E,
  'TPU v5e': _V5E,
  'TPU v5': _V5P,
  'TPU v5p': _V5P,
  'TPU v6 lite': _V6E,
  'TPU v6e': _V6E,
  'TPU7x': _tpu('TPU7x (one core)', 1153.5, 96, 3690, 300),
  'Tesla V100-SXM2-16GB': _gpu('V100 SXM2 16 GB', None, 15.7, 16, 900, 150),
  'Tesla V100-SXM2-32GB': _gpu('V100 SXM2 32 GB', None, 15.7, 32, 900, 150),
  'Tesla V100-PCIE-16GB': _gpu('V100 PCIe 16 GB', None, 14, 16, 900, _PCIE3),
  'Tesla V100-PCIE-32GB': _gpu('V100 PCIe 32 GB', None, 14, 32, 900, _PCIE3),
  'Tesla T4': _gpu('T4', None, 8.1, 16, 320, _PCIE3),
  'NVIDIA A10': _gpu('A10', 125, 62.5, 24, 600, _PCIE4),
  'NVIDIA A10G': _gpu('A10G', 70, 35, 24, 600, _PCIE4),
  'NVIDIA A100-SXM4-40GB': _gpu('A100 SXM4 40 GB', 312, 156, 40, 1555, 300),
  'NVIDIA A100-SXM4-80GB': _gpu('A100 SXM4 80 GB', 312, 156, 80, 2039, 300),
  'NVIDIA A100-PCIE-40GB': _gpu('A100 PCIe 40 GB', 312, 156, 40, 1555, _PCIE4),
  'NVIDIA A100 80GB PCIe': _gpu('A100 PCIe 80 GB', 312, 156, 80, 1935, _PCIE4),
  'NVIDIA GeForce RTX 3090': _gpu('RTX 3090', 71, 35.6, 24, 936, _PCIE4),
  'NVIDIA GeForce RTX 4090': _gpu('RTX 4090', 165.2, 82.6, 24, 1008, _PCIE4),
  'NVIDIA L4': _gpu('L4', 121, 60, 24, 300, _PCIE4),
  'NVIDIA L40S': _gpu('L40S', 362.05, 183, 48, 864, _PCIE4),
  'NVIDIA H100 80GB HBM3': _gpu('H100 SXM', 989.4, 494.7, 80, 3350, 450),
  'NVIDIA H100 PCIe': _gpu('H100 PCIe', 756, 378, 80, 2000, _PCIE5),
  'NVIDIA H200': _gpu('H200', 989.4, 494.7, 141, 4800, 450),
  'NVIDIA B200': _gpu('B200', 2250, 1125, 180, 8000, 900),
}


def find(device_kind: str) -> Chip | None:
  """The chip of this name (`jax.devices()[0].device_kind`); None: not in the table."""
  return CHIPS.get(device_kind.strip())
