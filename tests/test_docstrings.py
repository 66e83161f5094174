"""The examples in docstrings give what they say."""

import doctest
import importlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'jaxinpaint'
MODULES = sorted(
  '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
  for path in PACKAGE.rglob('*.py')
  if '>>>' in path.read_text()
)


@pytest.mark.parametrize('module', MODULES)
def test_examples_give_what_they_say(module):
  found = doctest.testmod(importlib.import_module(module))
  assert found.attempted and not found.failed
