"""StableHLO: a system as one program for CPUs, GPUs and TPUs, in a file that jax alone reads.

  stablehlo.write(function.build(trained.load('misf/places2')), 'misf.stablehlo')

  with zipfile.ZipFile('misf.stablehlo') as file:                       # in any other process
    program = jax.export.deserialize(bytearray(file.read('program')))
  filled = jax.jit(program.call)(image, mask)

The file is a zip of `program`, what jax.export serialises, with the weights inside, and
`card.json`, the card of the function. One program serves all its platforms: on a CPU it takes the
convolutions in the forms that are fast there, elsewhere the plain ones.
"""

import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import jax
from jax import export as jax_export
from jax import lax

from jaxinpaint.exporting.function import Exportable, numbers_needed
from jaxinpaint.predictor import Size
from jaxinpaint.runtime import atomic

PLATFORMS = ('cpu', 'cuda', 'tpu')


def write(
  exportable: Exportable,
  path: pathlib.Path,
  *,
  size: Size | None = None,
  batch: int | None = None,
  platforms: Sequence[str] = PLATFORMS,
) -> dict[str, Any]:
  """Writes the program and its card as one file; one that is there is replaced.

  Args:
    exportable: of `function.build`.
    path: of the file; missing folders are made.
    size: as `export`.
    batch: as `export`.
    platforms: as `export`.

  Returns:
    The card in the file.

  Raises:
    ExportError: as `export`.
    OSError: the file cannot be written.
  """
  program = export(exportable, size=size, batch=batch, platforms=platforms)
  card = {
    'format': 'jaxinpaint StableHLO',
    'jax': jax.__version__,
    'platforms': list(program.platforms),
    # As '16*h': any multiple of 16.
    'shape': [str(n) for n in program.in_avals[0].shape],
    **exportable.card,
  }

  def content(file: Any) -> None:
    with zipfile.ZipFile(file, 'w') as archive:
      archive.writestr('card.json', json.dumps(card, indent=2))
      archive.writestr('program', program.serialize())

  path.parent.mkdir(parents=True, exist_ok=True)
  atomic.write(path, content)
  return card


def export(
  exportable: Exportable,
  *,
  size: Size | None = None,
  batch: int | None = None,
  platforms: Sequence[str] = PLATFORMS,
) -> jax_export.Exported:
  """The program (image, mask) -> filled, with the weights inside.

  Args:
    exportable: of `function.build`.
    size: (height, width) of the images; None: any that the system takes, or its own
      (`Inference.side`).
    batch: number of images; None: any.
    platforms: those it runs on, in jax's words: 'cpu', 'cuda', 'rocm', 'tpu'.

  Raises:
    ExportError: the system does not take this size; or it chooses its operations by the size or the
      number of the images, so that these have to be given.
  """
  shape = exportable.shape(size, batch)
  specs = [jax.ShapeDtypeStruct((*shape, channels), 'float32') for channels in (3, 1)]

  def fill(image: jax.Array, mask: jax.Array) -> jax.Array:
    of = lambda form: lambda *arrays: exportable.fill(*arrays, form)
    # The weights are an argument, so that both forms share one copy.
    forms = dict(cpu=of('cpu'), default=of('plain'))
    return lax.platform_dependent(exportable.weights, image, mask, **forms)

  with numbers_needed(exportable, shape):
    return jax_export.export(jax.jit(fill), platforms=list(platforms))(*specs)
