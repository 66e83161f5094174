"""A page to repair photographs on, and an HTTP API, in a browser near you.

  jaxinpaint serve
  jaxinpaint serve --weights mesff/box --weights mine=runs/mesff
  jaxinpaint serve --host 0.0.0.0 --token SECRET --allow_host pictures.example.org

Needs `pip install 'jaxinpaint[serve]'`. Only this machine can reach the server, unless --host says
otherwise; then a token is needed, which is made up and printed if none is given (--token, or the
variable JAXINPAINT_TOKEN, which other users of this machine do not see). There is no encryption:
put a proxy with TLS before it where others share the network. See docs/serving.md.

Exit codes, with a sentence: 0; 1 where the server cannot listen; 2 where a flag is wrong.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence

from jaxinpaint.cli import command_line, listening
from jaxinpaint.runtime import activity

COMMAND = 'jaxinpaint serve'
_NEEDED = ('starlette', 'uvicorn', 'pydantic', 'python_multipart')


def _parser() -> command_line.Parser:
  parser = command_line.Parser(COMMAND, __doc__)
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  add(
    '--weights',
    type=path,
    action='append',
    default=[],
    metavar='[NAME=]WEIGHTS',
    help='a name as mesff/box, a weights file or a workdir; several times: the first is the '
    'default, requests name the others.',
  )
  listening.add_flags(parser, 8000)
  add('--max_megabytes', type=whole(1), default=64, metavar='N', help='of a request (default 64).')
  add('--max_megapixels', type=whole(1), default=50, metavar='N', help='of a picture (default 50).')
  add(
    '--max_side',
    type=whole(0),
    metavar='N',
    default=1024,
    help='the longest side that a network sees (default 1024): longer pictures are filled in '
    'windows around their holes, none longer than this. 0: any, they are filled whole.',
  )
  add(
    '--pad_to',
    type=whole(1, 4096),
    metavar='N',
    default=64,
    help='the page pads sides to a multiple of it, so that few sizes are compiled (default 64).',
  )
  add('--queue', type=whole(1), default=32, metavar='N', help='jobs that may wait (default 32).')
  add('--time_limit', type=whole(1), default=300, metavar='S', help='of a job (default 300 s).')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  if missing := listening.missing(_NEEDED):
    parser.error(missing)
  from jaxinpaint.serving.limits import LEAST_SIDE  # here: it reads image libraries

  if 0 < given.max_side < LEAST_SIDE:
    parser.error(f'--max_side {given.max_side} must be at least {LEAST_SIDE}, or 0 for any')
  try:
    places = _places(given.weights)
  except ValueError as error:
    parser.error(str(error))
  command_line.setup_logging(quiet=True)
  return _run(given, places)


def _places(weights: Sequence[str]) -> dict[str, str]:
  """{name in requests: path or name of weights}; raises ValueError for a name given twice."""
  places: dict[str, str] = {}
  for text in weights:
    name, equals, place = text.partition('=')
    name, place = (name, place) if equals else (os.path.basename(text.rstrip('/')), text)
    name = text if not equals and not os.path.exists(text) else name
    if name in places or not name or not place:
      raise ValueError(f'--weights {text}: give each its own name, NAME=WEIGHTS')
    places[name] = place
  return places


def _run(given: argparse.Namespace, places: dict[str, str]) -> int:
  with activity.shown('Loading jax and the library'):
    from jaxinpaint import trained
    from jaxinpaint.pictures import decode
    from jaxinpaint.runtime import compilation_cache
    from jaxinpaint.serving import app
    from jaxinpaint.serving.limits import Limits
    from jaxinpaint.serving.models import Models
    from jaxinpaint.web import http
    from jaxinpaint.weights import hub, names
    from jaxinpaint.weights.store import StoreError

  places = places or {names.DEFAULT: names.DEFAULT}
  try:
    for place in places.values():  # all are loaded later, but what is not there is told now
      path, _ = trained.locate(place)
      (trained.check_run if path.is_dir() else trained.check_file)(path)
  except (StoreError, OSError) as error:
    command_line.say(COMMAND, command_line.sentence(error))
    return 2
  os.environ[decode.LIMIT_VARIABLE] = str(given.max_megapixels)  # else 200 would be the most
  limits = dataclasses.replace(
    Limits(),
    bytes=given.max_megabytes << 20,
    megapixels=given.max_megapixels,
    waiting=given.queue,
    job_seconds=given.time_limit,
    max_side=given.max_side or None,
    pad_to=given.pad_to,
  )
  try:
    door = listening.listen(given)
  except OSError as error:
    command_line.say(COMMAND, error)
    return 1
  compilation_cache.use(hub.cache_folder() / 'inpaint')
  application = app.create(Models(places, limits), limits, token=door.token, hosts=door.hosts)
  server = http.make(application, lambda: print(door.address, flush=True), given.time_limit)
  try:
    server.run([door.socket])
  except KeyboardInterrupt:  # raised anew when all is ended
    pass
  return 0
