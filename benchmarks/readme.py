"""The README's table of systems, made of the code: `python -m benchmarks.zoo` writes it.

A row is a folder of `jaxinpaint/systems`: what its `published.PAPER` says of the idea and of the
reference outputs, and the configs that name it.
"""

import importlib
import pathlib

from benchmarks import pages
from jaxinpaint import systems
from jaxinpaint.cli import experiments

README = pathlib.Path(__file__).parent.parent / 'README.md'


def table() -> str:
  """The rows, in Markdown."""
  configs: dict[str, list[str]] = {system: [] for system in systems.list_systems()}
  for name in experiments.names():
    system = importlib.import_module(f'jaxinpaint.configs.{name}').get_config().get('system')
    if system:  # a study has none
      configs[system].append(name)
  rows = []
  for system, names in configs.items():
    paper = systems.module(system, 'published').PAPER
    reference = paper.reference or 'none'
    rows.append([f'`{system}`', paper.idea, reference, grouped(names)])
  return pages.table(['system', 'what it is', 'reference', 'configs'], rows)


def grouped(names: list[str]) -> str:
  """['a', 'a_b', 'c'] -> 'a (and \\_b), c'; a name that continues another is its variant."""
  variants: dict[str, list[str]] = {}
  for name in sorted(names):
    base = next((b for b in variants if name.startswith(f'{b}_')), None)
    if base is None:
      variants[name] = []
    else:
      variants[base].append('\\' + name.removeprefix(base))
  return ', '.join(b + (f' (and {", ".join(v)})' if v else '') for b, v in variants.items())


def page(text: str) -> str:
  """The README `text` with today's table in its place.

  Raises:
    ValueError: the marks around the table are gone.
  """
  return pages.between(text, 'systems: made by python -m benchmarks.zoo', table())


def write() -> None:
  """Replaces the table in README.md."""
  README.write_text(page(README.read_text()))
