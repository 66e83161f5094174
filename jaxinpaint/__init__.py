"""JAX image inpainting: one train loop, one evaluator, one inference path.

  import jaxinpaint

  jaxinpaint.list_systems()                         # the published systems there are
  inpainter = jaxinpaint.load()                     # or a training run, or weights.safetensors
  completed = inpainter(image, mask)                # uint8[H, W, 3], and [H, W] with 255 = hole

`image` and `completed` have the same shape and type, and the same pixels wherever the mask is no
hole. Training, evaluation and files are commands: `jaxinpaint --help`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jaxinpaint.inference.inpainter import Inpainter, load
  from jaxinpaint.systems import list_systems

__version__ = '0.2.0.dev0'
__all__ = ['Inpainter', '__version__', 'list_systems', 'load']

# Loaded at first use: `import jaxinpaint` alone costs no import of jax.
_LAZY = {
  'Inpainter': 'jaxinpaint.inference.inpainter',
  'list_systems': 'jaxinpaint.systems',
  'load': 'jaxinpaint.inference.inpainter',
}


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *_LAZY])
