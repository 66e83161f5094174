"""The routes of `jaxinpaint watch`: the page, the runs as JSON, their pictures. All only read."""

import json
import re
from collections.abc import Collection

from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jaxinpaint.watching import page
from jaxinpaint.watching.document import answer
from jaxinpaint.watching.runs import Runs
from jaxinpaint.web.guard import LOOPBACK, Guard
from jaxinpaint.web.problems import Problem

_MOST_KNOWN = 4096  # characters


def create(runs: Runs, *, token: str = '', hosts: Collection[str] = LOOPBACK) -> Starlette:
  """The application, for an ASGI server.

  Args:
    runs: that are shown.
    token: that requests of the API have to bring; '': none.
    hosts: names under which the server may be asked.
  """

  # Starlette calls these in threads, as they are no coroutines: they wait for disks.
  def show_runs(request: Request) -> Response:
    """The runs; of those whose version the client knows only what changes with the clock."""
    text = json.dumps(answer(runs, _known(request.query_params.get('known', ''))))
    return Response(text, media_type='application/json')

  def show_sample(request: Request) -> Response:
    """The grid of pictures of a step."""
    run = runs.get(request.path_params['run'])
    data = run.sample(request.path_params['step']) if run else None
    if data is None:
      raise Problem('not-found', 'the run has no such picture, or it is not whole yet')
    return Response(data, media_type='image/png')

  packed = [Middleware(GZipMiddleware, compresslevel=4)]
  routes = [
    Route('/', _fixed(page.live(), 'text/html')),
    *(Route(f'/{name}', _fixed(page.read(name), 'text/javascript')) for name in page.SCRIPTS),
    *(Route(f'/{name}', _fixed(page.read(name), 'text/css')) for name in page.STYLES),
    Route('/api/v1/runs', show_runs, middleware=packed),
    Route('/api/v1/runs/{run:int}/samples/{step:int}', show_sample),
  ]
  handlers = {HTTPException: _of_starlette, Problem: _of_problem, Exception: _of_any}
  guard = Middleware(Guard, token=token, hosts=hosts)
  return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)


def _fixed(text: str, kind: str):
  async def show(request: Request) -> Response:
    return Response(text, media_type=kind)

  return show


def _known(text: str) -> dict[int, str]:
  """'0:1f2e3d4c,1:...' -> {number of a run: its version}."""
  if len(text) > _MOST_KNOWN or not re.fullmatch(r'(\d{1,6}:[0-9a-f]{8}(,(?!$)|$))*', text):
    raise Problem('bad-request', 'known must be RUN:VERSION,RUN:VERSION,... of an earlier answer')
  return {int(run): version for run, _, version in (x.partition(':') for x in text.split(',') if x)}


async def _of_starlette(request: Request, error: HTTPException) -> Response:
  """Of Starlette's own router: 404 and 405."""
  if error.status_code == 405:
    return Problem('wrong-method', 'use GET: nothing can be changed here', error.headers).response()
  return Problem('not-found', 'there are the page at / and the runs at /api/v1/runs').response()


async def _of_problem(request: Request, error: Problem) -> Response:
  return error.response()


async def _of_any(request: Request, error: Exception) -> Response:
  logging.error('a request failed', exc_info=error)
  return Problem('failure', 'this is a fault of the server, whose log says more').response()
