"""The README's commands are those that CI and the configs know."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def test_ci_runs_the_readmes_test_command():
  readme = (ROOT / 'README.md').read_text()
  lines = re.findall(r'^\s*(python3 -m venv .*)$', readme, re.M)
  ci = (ROOT / '.ci' / 'run').read_text()
  assert [line for line in lines if 'pytest' in line and line in ci]


def test_every_path_that_the_documents_name_exists():
  for page in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]:
    for path in re.findall(
      r'(?<![\w/.])((?:configs|docs|jaxinpaint|benchmarks|tests)/[\w/.-]+\.(?:py|md))',
      page.read_text(),
    ):
      assert (ROOT / path).exists(), f'{page.name} names {path}, which is not there'
