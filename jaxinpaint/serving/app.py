"""The routes: the page, and the API under /api/v1.

app = create(Models({'mesff/box': 'mesff/box'}, limits), limits)
"""

import asyncio
import base64
import contextlib
import functools
import importlib.resources
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import pydantic
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import jaxinpaint
from jaxinpaint.serving import jobs, openapi, problems, worker
from jaxinpaint.serving import metrics as metrics_lib
from jaxinpaint.serving.forms import Body
from jaxinpaint.serving.jobs import Job, Queue
from jaxinpaint.serving.limits import Limits
from jaxinpaint.serving.metrics import Metrics
from jaxinpaint.serving.models import Models
from jaxinpaint.serving.schemas import (
  Health,
  JobStatus,
  JsonAnswer,
  ModelInfo,
  ModelList,
  ProblemDocument,
)
from jaxinpaint.serving.worker import Repaired
from jaxinpaint.web.guard import LOOPBACK, Guard
from jaxinpaint.web.problems import Problem

WARNINGS_HEADER = 'Jaxinpaint-Warnings'
_MOST_WARNINGS = 4096  # characters in a header
_PIECE = 256 << 10
_SWEEP_SECONDS = 1.0
_LOOK_SECONDS = 0.5  # between two looks at a job, or whether a client that waits has gone
_REPEAT_SECONDS = 15.0  # after which an unchanged state is told again, so that no proxy hangs up
_FILES = {
  '/': ('index.html', 'text/html', 'jaxinpaint.serving'),
  '/app.js': ('app.js', 'text/javascript', 'jaxinpaint.serving'),
  '/canvas.js': ('canvas.js', 'text/javascript', 'jaxinpaint.serving'),
  '/texts.js': ('texts.js', 'text/javascript', 'jaxinpaint.serving'),
  '/style.css': ('style.css', 'text/css', 'jaxinpaint.serving'),
  '/talk.js': ('talk.js', 'text/javascript', 'jaxinpaint.web'),
  '/base.css': ('base.css', 'text/css', 'jaxinpaint.web'),
  '/icon.svg': ('icon.svg', 'image/svg+xml', 'jaxinpaint.serving'),
}


def create(
  models: Models,
  limits: Limits,
  *,
  token: str = '',
  hosts: Collection[str] = LOOPBACK,
) -> Starlette:
  """The application, for an ASGI server; its worker lives from the start to the end of the app.

  Args:
    models: that can be named.
    limits: of requests and jobs.
    token: that requests of the API have to bring; '': none.
    hosts: names under which the server may be asked.
  """
  server = _Server(models, limits)
  api = [
    ('POST', '/api/v1/inpaint', server.inpaint),
    ('POST', '/api/v1/jobs', server.submit),
    ('GET', '/api/v1/jobs/{id}', server.status),
    ('DELETE', '/api/v1/jobs/{id}', server.cancel),
    ('GET', '/api/v1/jobs/{id}/events', server.events),
    ('GET', '/api/v1/jobs/{id}/result', server.result),
    ('GET', '/api/v1/models', server.list_models),
    ('GET', '/api/v1/health', server.health),
    ('GET', '/api/v1/openapi.json', server.openapi),
    ('GET', '/metrics', server.show_metrics),
  ]
  pages = {path: (_file(name, package), kind) for path, (name, kind, package) in _FILES.items()}
  pages['/docs'] = (openapi.page(openapi.document(limits)).encode(), 'text/html')
  api += [('GET', path, _fixed(*page)) for path, page in pages.items()]
  routes = [Route(path, _named(path, handle), methods=[method]) for method, path, handle in api]
  handlers = {
    HTTPException: _of_starlette,
    Problem: _of_problem,
    Exception: _of_any,
  }
  guard = Middleware(Guard, limits.bytes, server.answered, token=token, hosts=hosts)
  return Starlette(
    routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=server.lifespan
  )


def _named(path: str, handle):
  """The handler, which notes its route for the metrics, and whose errors are problems."""

  @functools.wraps(handle)
  async def handle_request(request: Request) -> Response:
    request.scope['jaxinpaint.route'] = path
    try:
      return await handle(request)
    except ClientDisconnect:
      return Response(status_code=400)  # nobody reads it
    except Exception as error:  # any: the client gets a document, the log what a bug needs
      return problems.of(error).response()

  return handle_request


def _fixed(data: bytes, kind: str):
  async def answer(request: Request) -> Response:
    return Response(data, media_type=kind)

  return answer


def _file(name: str, package: str) -> bytes:
  return importlib.resources.files(package).joinpath('page', name).read_bytes()


async def _of_starlette(request: Request, error: HTTPException) -> Response:
  """Of Starlette's own router: 404 and 405."""
  if error.status_code == 405:
    allowed = (error.headers or {}).get('Allow', '')
    return Problem('wrong-method', f'use {allowed}', error.headers).response()
  return Problem('not-found', 'the addresses are listed at /docs').response()


async def _of_problem(request: Request, error: Problem) -> Response:
  return error.response()


async def _of_any(request: Request, error: Exception) -> Response:
  return problems.of(error).response()


class _Server:
  """What the routes share."""

  def __init__(self, models: Models, limits: Limits):
    self.models, self.limits, self.metrics = models, limits, Metrics()
    self.queue: Queue | None = None
    self.first: Job | None = None  # loads the default model

  @contextlib.asynccontextmanager
  async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
    """Starts the worker, and ends it."""
    self.queue = Queue(self._work, self.limits, ended=self._count)
    self.first = self.queue.submit(None, 0)
    sweeper = asyncio.create_task(self._sweep())
    try:
      yield
    finally:
      sweeper.cancel()
      await asyncio.to_thread(self.queue.close)

  async def _sweep(self) -> None:
    while True:
      await asyncio.sleep(_SWEEP_SECONDS)
      self.queue.sweep()

  def _work(self, job: Job) -> Repaired | None:
    if job.request is None:
      job.enter(jobs.LOADING)
      self.models.get(self.models.default)
      return None
    try:
      result = worker.work(self.models, job)
    except Exception as error:  # any: a client may ask for it several times, but it is logged once
      raise problems.of(error) from error
    self.metrics.duration(
      'jaxinpaint_job_seconds', 'Seconds of work on a job.', result.seconds, model=result.model
    )
    return result

  def answered(self, route: str, status: int) -> None:
    """Counts an answer."""
    name, about = 'jaxinpaint_requests_total', 'Requests answered.'
    self.metrics.count(name, about, route=route, status=str(status))

  def _count(self, job: Job) -> None:
    if job is not self.first:
      self.metrics.count('jaxinpaint_jobs_total', 'Jobs that ended.', state=job.state)

  async def _accept(self, request: Request) -> Job:
    self.queue.check()  # before the body is read
    with Body(request, self.limits, self.queue) as body:
      asked = await body.read()
      asked.options.model = self.models.check(asked.options.model)
      return self.queue.submit(asked, asked.size)

  async def inpaint(self, request: Request) -> Response:
    """Waits for the result."""
    job = await self._accept(request)
    try:
      result = await self._wait(job, request)
    finally:
      self.queue.cancel(job)
      self.queue.forget(job)
    if request.headers.get('accept', '').strip().lower() == 'application/json':
      image = base64.b64encode(result.data).decode()
      names = ('media_type', 'model', 'warnings', 'seconds')
      return _json(JsonAnswer(image=image, **{name: getattr(result, name) for name in names}))
    return _picture(result)

  async def _wait(self, job: Job, request: Request) -> Repaired:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    job.future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    while not done.is_set():
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), _LOOK_SECONDS)
      if not done.is_set() and await request.is_disconnected():
        raise ClientDisconnect
    return job.future.result()

  async def submit(self, request: Request) -> Response:
    """Accepts a job and answers at once."""
    job = await self._accept(request)
    return _json(self._status(job), 202, {'Location': f'/api/v1/jobs/{job.id}'})

  async def status(self, request: Request) -> Response:
    """Where a job is."""
    return _json(self._status(self._find(request)))

  async def events(self, request: Request) -> Response:
    """The states of a job while they change, as server-sent events; its end is the last."""
    job = self._find(request)

    async def told() -> AsyncIterator[str]:
      last, since = None, 0.0
      while True:
        status, now = self._status(job), time.monotonic()
        if (status.state, status.position) != last or now - since >= _REPEAT_SECONDS:
          last, since = (status.state, status.position), now
          yield f'data: {status.model_dump_json()}\n\n'
        if status.state in jobs.ENDS:
          return
        await asyncio.sleep(_LOOK_SECONDS)

    return StreamingResponse(told(), media_type='text/event-stream')

  async def cancel(self, request: Request) -> Response:
    """Ends a job and forgets it."""
    job = self._find(request)
    self.queue.cancel(job)
    self.queue.forget(job)
    return Response(status_code=204)

  async def result(self, request: Request) -> Response:
    """The picture, which is forgotten when it has been sent."""
    job = self._find(request)
    if job.state not in jobs.ENDS:
      raise Problem('not-done', f'the job is {job.state}: ask for its state until it is done')

    async def sent() -> None:
      # Pieces for a client that has gone are dropped without an error.
      if not await request.is_disconnected():
        self.queue.forget(job)

    return _picture(job.future.result(), sent)

  def _find(self, request: Request) -> Job:
    job = self.queue.find(request.path_params['id'])
    if job is None or job is self.first:
      raise Problem('not-found', 'there is no such job, or its result was fetched or has expired')
    return job

  def _status(self, job: Job) -> JobStatus:
    state, problem, result = job.state, None, None
    if state == jobs.DONE:
      result = job.future.result()
    elif state == jobs.FAILED:
      problem = ProblemDocument(**problems.of(job.future.exception()).document)
    return JobStatus(
      id=job.id,
      state=state,
      position=self.queue.position(job),
      seconds=round(max(0.0, job.clock() - job.since), 3),
      estimate=job.estimate,
      media_type=result and result.media_type,
      warnings=list(result.warnings) if result else [],
      problem=problem,
    )

  async def list_models(self, request: Request) -> Response:
    """The models and limits."""
    default, loaded = self.models.default, self.models.loaded
    infos = [ModelInfo(name=n, default=n == default, loaded=loaded(n)) for n in self.models.names]
    return _json(
      ModelList(
        models=infos,
        max_bytes=self.limits.bytes,
        max_megapixels=self.limits.megapixels,
        max_side=self.limits.max_side,
      )
    )

  async def health(self, request: Request) -> Response:
    """Whether the server can work: 200, or 503."""
    state = 'ok'
    if self.queue.stuck:
      state = 'stuck'
    elif not self.models.loaded(self.models.default):
      state = 'failed' if self.first.state == jobs.FAILED else 'loading'
    health = Health(status=state, version=jaxinpaint.__version__, waiting=self.queue.waiting)
    return _json(health, 200 if state == 'ok' else 503)

  async def openapi(self, request: Request) -> Response:
    """The OpenAPI document."""
    text = json.dumps(openapi.document(self.limits))
    return Response(text, media_type='application/json')

  async def show_metrics(self, request: Request) -> Response:
    """Counters and gauges in Prometheus' format."""
    models, queue = self.models, self.queue
    now = [
      ('jaxinpaint_queue_waiting', 'gauge', 'Jobs that wait.', queue.waiting),
      ('jaxinpaint_queue_running', 'gauge', 'Jobs that run.', queue.running is not None),
      ('jaxinpaint_held_bytes', 'gauge', 'Bytes of bodies and results.', queue.held),
      ('jaxinpaint_compilations_total', 'counter', 'Programs compiled.', models.compilations),
      (
        'jaxinpaint_compile_seconds_total',
        'counter',
        'Seconds of compiling.',
        models.compile_seconds,
      ),
      ('process_resident_memory_bytes', 'gauge', 'Memory now.', metrics_lib.resident_bytes()),
    ]
    return Response(self.metrics.text(now), media_type=metrics_lib.CONTENT_TYPE)


def _json(content: pydantic.BaseModel, status: int = 200, headers=None) -> Response:
  return Response(content.model_dump_json(), status, headers, media_type='application/json')


def _picture(result: Repaired, sent: Callable[[], Awaitable] | None = None) -> Response:
  """The file; `sent` is called when all of it was handed to the connection."""

  async def pieces() -> AsyncIterator[bytes]:
    view = memoryview(result.data)
    for at in range(0, len(view), _PIECE):
      yield bytes(view[at : at + _PIECE])
    if sent is not None:
      await sent()

  ending = result.media_type.partition('/')[2]
  headers = {
    'Content-Length': str(len(result.data)),
    'Content-Disposition': f'inline; filename="repaired.{ending}"',
    'Jaxinpaint-Model': result.model.encode('ascii', 'backslashreplace').decode(),
  }
  if result.warnings:
    sentences = list(result.warnings)
    while len(text := json.dumps(sentences)) > _MOST_WARNINGS:
      sentences.pop()
    headers[WARNINGS_HEADER] = text
  return StreamingResponse(pieces(), headers=headers, media_type=result.media_type)
