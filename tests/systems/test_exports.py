"""Every system is exported as docs/export.md says."""

import pathlib

import jax
import numpy as np
import pytest
from test_completeness import CONFIGS, ROOT, get_config

from jaxinpaint import systems
from jaxinpaint.exporting import function, stablehlo
from jaxinpaint.trained import Trained


def documented():
  """{system: what the table says of its sizes and its batch}."""
  lines = (ROOT / 'docs' / 'export.md').read_text().splitlines()
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if '|' in line]
  return {row[0]: tuple(row[1:3]) for row in rows if row[0] in systems.list_systems()}


def test_the_document_lists_every_system():
  assert set(documented()) == set(systems.list_systems())


@pytest.mark.slow
@pytest.mark.parametrize('system', systems.list_systems())
def test_a_system_is_exported_as_the_document_says(system):
  config = next(c for p in CONFIGS if (c := get_config(p, 'quicktest')).system == system)
  inference = systems.inference(config)
  zeros = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype),
    (inference.shapes(), inference.load_constants(shapes_only=True)),
  )
  trained = Trained(pathlib.Path('x.safetensors'), None, config, inference, *zeros, {})
  sizes, batch = documented()[system]
  if sizes == 'not exported':
    with pytest.raises(function.ExportError, match='beside image and mask'):
      function.build(trained)
    return
  assert sizes in ('any', 'given', 'its own') and (sizes == 'its own') == (inference.side > 0)
  exportable, given = function.build(trained), {}
  if sizes == 'given':
    with pytest.raises(function.ExportError, match='for any size'):
      stablehlo.export(exportable)
    given['size'] = inference.seen_size(64, 64)
  if batch == 'given':
    with pytest.raises(function.ExportError, match='any number of images'):
      stablehlo.export(exportable, **given)
    given['batch'] = 1
  program = stablehlo.export(exportable, **given)
  assert program.platforms == stablehlo.PLATFORMS
