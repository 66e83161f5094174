"""The page, with files beside it for a server, or with all in it and the runs, as one file."""

import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

import jaxinpaint

# {a file's name: the package that has it, in page/}. Modules stand below those that they import.
SCRIPTS = {
  'texts.js': 'jaxinpaint.watching',
  'talk.js': 'jaxinpaint.web',
  'charts.js': 'jaxinpaint.watching',
  'tables.js': 'jaxinpaint.watching',
  'watch.js': 'jaxinpaint.watching',
}
STYLES = {'base.css': 'jaxinpaint.web', 'style.css': 'jaxinpaint.watching'}


def live() -> str:
  """The page of a server that answers at api/v1/runs."""
  return _render(saved=None)


def saved(document: Mapping[str, Any], pictures: Mapping[int, Mapping[int, str]]) -> str:
  """The page that shows these runs without a server or network.

  Args:
    document: what the server would answer, and 'saved', when it was made (seconds since 1970), and
      'left_out_pictures'.
    pictures: {number of a run: {step: data URI}}.
  """
  data = {**document, 'pictures': pictures}
  # In a script nothing ends the element but its end tag; these escapes are JSON's own.
  text = json.dumps(data, separators=(',', ':')).replace('<', '\\u003c')
  return _render(
    saved=markupsafe.Markup(text),
    style=markupsafe.Markup('\n'.join(read(name) for name in STYLES)),
    script=markupsafe.Markup('\n'.join(_part(read(name)) for name in SCRIPTS)),
  )


def read(name: str) -> str:
  """The text of one of SCRIPTS or STYLES."""
  package = (SCRIPTS | STYLES)[name]
  return importlib.resources.files(package).joinpath('page', name).read_text('utf-8')


def _part(module: str) -> str:
  """A module as a part of a larger one: without imports, and exporting nothing."""
  module = re.sub(r'^import [^;]*;\n', '', module, flags=re.M)
  return re.sub(r'^export ', '', module, flags=re.M)


def _render(**values: Any) -> str:
  loader = jinja2.PackageLoader('jaxinpaint.watching', 'page')
  templates = jinja2.Environment(
    loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
  )
  names = {'styles': list(STYLES), 'scripts': list(SCRIPTS), 'version': jaxinpaint.__version__}
  return templates.get_template('index.html').render(**names, **values)
