"""The README's commands are those that CI and the configs know."""

import json
import pathlib
import re

from benchmarks import readme, zoo
from jaxinpaint import systems

ROOT = pathlib.Path(__file__).parent.parent


def test_the_readmes_test_command_is_what_ci_runs():
  readme = (ROOT / 'README.md').read_text()
  assert re.search(r'^Run the tests.*\n\n    bash \.ci/run$', readme, re.M)
  assert 'run: bash .ci/run' in (ROOT / '.github/workflows/ci.yml').read_text()
  *before, last = (ROOT / '.ci' / 'run').read_text().splitlines()
  assert 'pytest' in last, 'its closing line is the last of the output'
  assert '.venv/bin/ruff check .' in before and '.venv/bin/ruff format --check .' in before


def test_every_path_that_the_documents_name_exists():
  for page in [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]:
    for path in re.findall(
      r'(?<![\w/.])((?:configs|docs|jaxinpaint|benchmarks|tests)/[\w/.-]+\.(?:py|md))',
      page.read_text(),
    ):
      assert (ROOT / path).exists(), f'{page.name} names {path}, which is not there'


def test_the_zoo_page_is_that_of_its_results_and_the_code():
  results = json.loads((ROOT / 'docs' / 'zoo.json').read_text())
  assert sorted(results) == systems.list_systems(), 'run python -m benchmarks.zoo'
  assert (ROOT / 'docs' / 'zoo.md').read_text() == zoo.render(results)


def test_the_readmes_table_is_that_of_the_systems_and_configs():
  text = readme.README.read_text()
  assert text == readme.page(text), 'run python -m benchmarks.zoo'
  assert all(systems.module(s, 'published').PAPER.idea for s in systems.list_systems())
