"""docs/zoo.md: every system with its paper, size, published weights and what was found out here.

  python -m benchmarks.zoo             docs/zoo.json -> docs/zoo.md; the README's table
  python -m benchmarks.zoo --measure   counts parameters and operations again first
  JAXINPAINT_GOLDEN_ERRORS=FILE python -m pytest -m golden
  python -m benchmarks.zoo --goldens FILE   takes the errors that such a test run has found

docs/zoo.json holds what is measured: parameters of each network, GFLOPs, the largest error of each
reference output. Its `trained` entries are written by hand, from a run's metrics.jsonl.
"""

import argparse
import collections
import json
import pathlib
import re

from clu import parameter_overview

from benchmarks import readme
from jaxinpaint import systems
from jaxinpaint.cost import costs
from jaxinpaint.recipe import Recipe
from jaxinpaint.weights import mapping, names, store

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
SIDE = 256
_HEADER = """# Zoo

Made by `python -m benchmarks.zoo` of the code and of `docs/zoo.json`; do not edit by hand.

- *Parameters*: of the published configuration, in millions: the networks that fill a hole, then
  those that only training needs.
- *GFLOPs*: of one image of {side} x {side} on its way through `predict`, a multiply-add counted as
  two; convolutions and matrix products only. Networks of one size: at that size.
- *Reference*: what made the stored outputs that the tests compare with. *authors' code*: the code
  that the authors published; *port*: somebody else's reimplementation; *transcribed from the
  paper*: written here from the paper, as no code is published, so agreement says that this library
  is what was read, and not that the authors' network is the same.
- *Reference error*: the largest absolute difference from these outputs, and which one has it. The
  tests hold each to its own tolerance.
- *Trained here*: small runs that show that a recipe learns, no results of the paper's kind.

"""


_IN_THE_LIBRARY = """## Weights in the library
Rows are what the files' own cards say; `jaxinpaint weights show NAME` prints all of it. Parameters
in millions, means over the images of each hole share, metrics as docs/evaluation.md names them.

"""


def recipe_of(system: str) -> Recipe:
  """The recipe in the published configuration: that of the first published files, if there are."""
  config = systems.default_config(system)
  for format in systems.module(system, 'published').FORMATS.values():
    with config.unlocked():
      config.model.update(format.model)
    break
  return systems.make_recipe(config)


def networks_of(system: str) -> tuple[dict[str, int], tuple[str, ...]]:
  """{network: its number of parameters} in the published configuration, and those for inference."""
  recipe = recipe_of(system)
  params = recipe.shapes().params
  counts = {n: int(parameter_overview.count_parameters(params[n])) for n in recipe.networks}
  return counts, recipe.inference.networks


def gflops_of(system: str) -> float:
  """Of one image of 256 x 256, or of the one size that the networks take."""
  inference = recipe_of(system).inference
  return costs.gflops(inference, (inference.shapes(), {}), SIDE)


def golden_errors(file: pathlib.Path) -> dict[str, float]:
  """{name of the stored output: largest error} of a test run's $JAXINPAINT_GOLDEN_ERRORS."""
  errors: dict[str, float] = collections.defaultdict(float)
  for line in file.read_text().splitlines():
    error, test = line.split('\t')
    case = re.search(r'\[([^\]]+)\]', test)
    if case:
      errors[case[1]] = max(errors[case[1]], float(error))
  return dict(sorted(errors.items()))


def render(results: dict) -> str:
  """The page, from `docs/zoo.json` and the systems' own `published.py`."""
  rows = [
    ['System', 'Paper', 'Parameters', 'GFLOPs', 'Reference', 'Reference error', 'Trained here'],
    ['---', '---', '--:', '--:', '---', '---', '---'],
  ]
  weights = [['System', 'Format', 'Files', 'Licence of the weights'], ['---'] * 4]
  for system in systems.list_systems():
    published = systems.module(system, 'published')
    found = results[system]
    rows.append(
      [
        f'`{system}`',
        _paper(published.PAPER),
        _millions(found['parameters'], found['predict_networks']),
        f'{found["gflops"]:.1f}',
        published.PAPER.reference or 'none',
        _worst(found.get('golden_errors', {})),
        found.get('trained') or 'not trained here',
      ]
    )
    for name, format in published.FORMATS.items():
      where = f'[{name}]({format.url})' if format.url else name
      weights.append([f'`{system}`', where, format.note, format.licence or 'not stated'])
    if not published.FORMATS:
      weights.append([f'`{system}`', 'none', 'no weights are published', ''])
  page = _HEADER.format(side=SIDE) + _table(rows) + '\n' + _IN_THE_LIBRARY + _table(_shipped())
  page += '\n## Published weights\nHow to import them: `docs/weights.md`.\n\n'
  return page + _table(weights)


def _shipped() -> list[list[str]]:
  """A row for each name of weights, from its card."""
  rows = [['Name', 'Parameters', 'Trained', 'Results', 'Notes'], ['---', '--:', *['---'] * 3]]
  for name, file in names.FILES.items():
    meta = store.load(names.FOLDER / file).meta
    source, results = meta['source'], meta['results']
    rows.append(
      [
        f'`{name}`',
        f'{sum(c["parameters"] for c in meta["networks"].values()) / 1e6:.2f}',
        f'{source["step"]:,} steps, {source["images"]:,} crops of {source["data"]["count"]} images'
        + (f', from {source["started_from"]}' if source['started_from'] else ''),
        f'{results["protocol"]}, {results["images"]} images of {results["size"][0]} px: '
        + '; '.join(
          f'{label} %: ' + ', '.join(f'{m} {x:g}' for m, x in means.items() if 'hole' in m)
          for label, means in results['means'].items()
        ),
        ' '.join(meta['notes']),
      ]
    )
  return rows


def _paper(paper: mapping.Paper) -> str:
  title = f'[{paper.title}]({paper.url})' if paper.url else paper.title
  where = ' '.join(str(part) for part in (paper.venue, paper.year) if part)
  return f'{title}. {paper.authors}' + (f'. {where}' if where else '')


def _millions(counts: dict[str, int], used: list[str]) -> str:
  sums = [sum(c for n, c in counts.items() if (n in used) == wanted) for wanted in (True, False)]
  return ' + '.join(f'{s / 1e6:.2f}' for s in sums if s)


def _worst(errors: dict[str, float]) -> str:
  if not errors:
    return 'no reference output'
  name = max(errors, key=errors.get)
  return f'{errors[name]:.1e} ({name}; {len(errors)} outputs)'


def _table(rows: list[list[str]]) -> str:
  return ''.join('| ' + ' | '.join(row) + ' |\n' for row in rows)


def _owner(case: str) -> str | None:
  """The system that a reference output is filed under; None: a shared layer's or metric's."""
  shared = {
    'contextual_attention': 'deepfillv1',
    'gated_conv': 'deepfillv2',
    'sn_patchgan': 'deepfillv2',
    'spectral_norm_power_iteration': 'deepfillv2',
    'stylegan2': 'lfr',
    'psp': 'lfr',
    'arcface': 'lfr',
  }
  known = {s: s for s in systems.list_systems()} | shared
  return next((system for prefix, system in known.items() if case.startswith(prefix)), None)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--measure', action='store_true')
  parser.add_argument('--goldens', type=pathlib.Path, help='of a test run')
  parser.add_argument('--systems', default='', help='comma-separated; default: all')
  given = parser.parse_args()
  file = DOCS / 'zoo.json'
  results = json.loads(file.read_text()) if file.exists() else {}
  chosen = given.systems.split(',') if given.systems else systems.list_systems()
  for system in chosen:
    found = results.setdefault(system, {})
    if given.measure or 'parameters' not in found:
      counts, used = networks_of(system)
      found |= {'parameters': counts, 'predict_networks': list(used)}
      found['gflops'] = round(gflops_of(system), 2)
      print(system, found['parameters'], found['gflops'], flush=True)
  if given.goldens:
    for system in chosen:
      results[system].pop('golden_errors', None)
    for case, error in golden_errors(given.goldens).items():
      owner = _owner(case)
      if owner in chosen:
        errors = results[owner].setdefault('golden_errors', {})
        errors[case] = float(f'{error:.2g}')
  file.write_text(json.dumps(dict(sorted(results.items())), indent=2) + '\n')
  (DOCS / 'zoo.md').write_text(render(results))
  readme.write()


if __name__ == '__main__':
  main()
