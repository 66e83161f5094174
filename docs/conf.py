"""The documentation as a site: `pip install '.[docs]' && sphinx-build -W docs build/site`.

The pages are the Markdown files of this folder. The reference is made of the docstrings, which are
plain text with Google's sections; code is indented, names stand in single backticks. `_as_rest`
turns that into what Sphinx reads.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jaxinpaint  # noqa: E402

project = 'jaxinpaint'
author = copyright = 'the jaxinpaint authors'
version = release = jaxinpaint.__version__

extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.apidoc',
  'sphinx.ext.napoleon',
]
source_suffix = {'.md': 'markdown', '.rst': 'restructuredtext'}
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3

html_theme = 'furo'
html_title = f'jaxinpaint {version}'
html_static_path = []
html_copy_source = False

apidoc_modules = [
  {
    'path': '../jaxinpaint',
    'destination': 'api',
    'exclude_patterns': ['**/configs/**', '**/cli/**'],
    'separate_modules': False,
    'include_private': False,
    'no_headings': False,
    'module_first': True,
  }
]
apidoc_automodule_options = {'members'}
autodoc_default_options = {'members': True, 'member-order': 'bysource', 'ignore-module-all': True}
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
python_maximum_signature_line_length = 90
toc_object_entries = False

suppress_warnings = ['ref.python']  # a type's short name may be that of several modules

_SECTION = re.compile(r'^(Args|Attributes|Returns|Yields|Raises):$')


def _inline(text: str) -> str:
  """Names in single backticks become literals; elsewhere reST's signs lose their meaning."""
  parts = re.split(r'(`[^`]+`)', text)
  for i, part in enumerate(parts):
    if i % 2:
      plural = parts[i + 1][:1].isalnum()  # `Update`s
      parts[i] = f'`{part}`' + (r'\ ' if plural else '')
    else:
      parts[i] = re.sub(r'([*|]|_(?=\W|$))', r'\\\1', part)
  return ''.join(parts)


def _as_rest(text: str) -> str:
  """A docstring as reST: outside of sections, indented lines are a list or a literal block."""
  blocks: list[tuple[str, list[str]]] = []
  kind = 'text'
  for line in text.splitlines():
    starts = bool(_SECTION.match(line))
    if starts:
      kind = 'section'
    elif line.startswith('>>>'):
      kind = 'examples'
    elif not line:
      kind = 'text' if kind == 'examples' else kind
    elif not line.startswith('  '):
      kind = 'text' if kind != 'examples' else kind  # what an example prints
    elif kind == 'text':
      kind = 'list' if line.lstrip().startswith('- ') else 'literal'
    if starts or not blocks or kind != blocks[-1][0]:
      blocks.append((kind, []))
    blocks[-1][1].append(line)
  made = []
  for kind, lines in blocks:
    if kind == 'literal':
      made += ['::\n', *(f'  {line}' for line in lines), '']
    else:
      body = '\n'.join(lines)
      made += [body if kind == 'examples' else _inline(body), '']
  return '\n'.join(made)


def _process(app, what, name, obj, options, lines) -> None:
  lines[:] = _as_rest('\n'.join(lines)).splitlines()


def setup(app) -> None:
  """Sphinx calls it."""
  app.connect('autodoc-process-docstring', _process, priority=100)  # before napoleon's 500
