"""The published systems, one folder each, found by name.

A folder holds `networks.py` (flax modules), `recipe.py` (`default_config()`, `inference(config)`,
`make(config)`) and `published.py` (the key map of the published checkpoints, and the names of those
that can be loaded by name). Nothing else in the
library names a system. May import features, data and the floors below.
"""

import functools
import importlib
import importlib.util
import os
import pathlib
from types import ModuleType

from ml_collections import ConfigDict

from jaxinpaint import migrations
from jaxinpaint.recipe import Inference, Recipe
from jaxinpaint.weights import importer


def list_systems() -> list[str]:
  """Names of all systems, sorted: the folders beside this file."""
  here = pathlib.Path(__file__).parent
  return sorted(p.parent.name for p in here.glob('*/recipe.py'))


def module(system: str, part: str) -> ModuleType:
  """The module `part` ('networks', 'recipe' or 'published') of a system.

  Raises:
    ValueError: no system of that name; lists those there are.
  """
  if system not in list_systems():
    raise ValueError(f'unknown system {system!r}; there are: {", ".join(list_systems())}')
  return importlib.import_module(f'jaxinpaint.systems.{system}.{part}')


def default_config(system: str) -> ConfigDict:
  """ConfigDict(version, system, dtype, model, loss, ...) with the system's published settings."""
  sections = module(system, 'recipe').default_config()
  return ConfigDict({'version': migrations.VERSION, **sections})


def inference(config: ConfigDict) -> Inference:
  """How `config.system` is run, from config.model and config.dtype alone.

  Raises:
    ValueError: an unknown system, or a field that makes no sense; names it.
  """
  return module(config.system, 'recipe').inference(config)


def make_recipe(config: ConfigDict) -> Recipe:
  """How `config.system` is run and trained, from config.model, loss, phases and dtype.

  A config that was stored is brought to today's fields first, by `migrations.migrate`.

  Raises:
    ValueError: an unknown system, or a field that makes no sense; names it.
  """
  return module(config.system, 'recipe').make(config)


def published(system: str) -> importer.Published:
  """What `weights.importer` has to know of a system.

  Raises:
    ValueError: no system of that name.
  """
  name = f'jaxinpaint.systems.{system}.published'
  lacking = system in list_systems() and importlib.util.find_spec(name) is None
  facts = None if lacking else module(system, 'published')
  return importer.Published(
    system,
    dict(facts.FORMATS) if facts else {},
    functools.partial(default_config, system),
    make_recipe,
    dict(getattr(facts, 'NAMES', {})),
  )


def published_names() -> list[str]:
  """'SYSTEM/NAME' of all published weights that `named` knows."""
  return [f'{system}/{name}' for system in list_systems() for name in published(system).names]


def named(path: str | os.PathLike) -> tuple[importer.Published, str] | None:
  """(the system, the name) of published weights 'SYSTEM/NAME'; None: it is no such name."""
  system, _, name = str(path).partition('/')
  if not name or system not in list_systems():
    return None
  known = published(system)
  return (known, name) if name in known.names else None
