"""A request's body: read within its limits, in memory only, and taken apart."""

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator

import pydantic
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from jaxinpaint.serving import limits as limits_lib
from jaxinpaint.serving.jobs import Queue
from jaxinpaint.serving.limits import MEDIA_TYPES, WRITTEN, Limits, TooLarge
from jaxinpaint.serving.schemas import JsonRequest, Options
from jaxinpaint.web.problems import Problem

_FILES = ('image', 'mask')
_FIELD_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Asked:
  """A request that may become a job.

  Attributes:
    image: the content of the picture's file.
    mask: of the mask's.
    options: with a format that is known, a model that may not be.
  """

  image: bytes
  mask: bytes
  options: Options

  @property
  def size(self) -> int:
    """Bytes that it holds."""
    return len(self.image) + len(self.mask)

  @property
  def format(self) -> str | None:
    """Of the result, the writer's name; None: as the picture."""
    return WRITTEN[self.options.format] if self.options.format else None


class _InMemory(MultiPartParser):
  spool_max_size = sys.maxsize  # Starlette's own would put files of a megabyte on the disk


class Body:
  """A body that is being received; its bytes are counted among those that the queue holds."""

  def __init__(self, request: Request, limits: Limits, queue: Queue):
    self._request, self._limits, self._queue = request, limits, queue
    self._reserved = 0

  def __enter__(self) -> 'Body':
    return self

  def __exit__(self, *_) -> None:
    self._queue.release(self._reserved)

  async def read(self) -> Asked:
    """Takes the body apart.

    Raises:
      Problem: it is not what the API wants.
      TooLarge: of bytes or pixels.
      Full: too much is being received.
      TimeoutError: it arrives too slowly.
      UnreadableImage: one of its files is no picture.
      ClientDisconnect: it breaks off.
    """
    kind = self._request.headers.get('content-type', '').partition(';')[0].strip().lower()
    async with asyncio.timeout(self._limits.body_seconds):
      if kind == 'multipart/form-data':
        asked = await self._multipart()
      elif kind == 'application/json':
        data = b''.join([chunk async for chunk in self._chunks()])
        asked = await run_in_threadpool(_from_json, data)
      else:
        raise Problem('wrong-type', 'send multipart/form-data or application/json')
    if asked.options.format is None:
      asked.options.format = _accepted(self._request)
    for data, name in ((asked.image, 'image'), (asked.mask, 'mask')):
      await run_in_threadpool(limits_lib.check_header, data, name, self._limits)
    return asked

  async def _chunks(self) -> AsyncIterator[bytes]:
    limit = self._limits.bytes
    sentence = f'the body has more than the limit of {limit / 2**20:g} MiB: send a smaller picture'
    declared = self._request.headers.get('content-length', '')
    if declared.isdecimal() and int(declared) > limit:
      raise TooLarge(sentence)
    while True:
      message = await self._request.receive()
      if message['type'] == 'http.disconnect':
        raise ClientDisconnect
      chunk = message.get('body', b'')
      if self._reserved + len(chunk) > limit:
        raise TooLarge(sentence)
      self._queue.reserve(len(chunk))
      self._reserved += len(chunk)
      yield chunk
      if not message.get('more_body', False):
        return

  async def _multipart(self) -> Asked:
    chunks = self._chunks()
    # Two files, and one field for each option.
    fields = len(Options.model_fields)
    most = dict(max_files=len(_FILES), max_fields=fields, max_part_size=_FIELD_BYTES)
    try:
      async with contextlib.aclosing(chunks):
        form = await _InMemory(self._request.headers, chunks, **most).parse()
    except MultiPartException as error:
      raise Problem('bad-request', f'the form cannot be read: {error.message}') from error
    files: dict[str, bytes] = {}
    options: dict[str, str] = {}
    try:
      for name, value in form.multi_items():
        where = files if isinstance(value, UploadFile) else options
        if isinstance(value, UploadFile) != (name in _FILES):
          must = 'must be a file' if name in _FILES else 'must not be a file'
          raise Problem('bad-request', f'{name[:100]!r} {must}')
        if name in where:
          raise Problem('bad-request', f'{name!r} was sent twice: send it once')
        where[name] = await value.read() if isinstance(value, UploadFile) else value
    finally:
      await form.close()
    missing = [name for name in _FILES if name not in files]
    if missing:
      raise Problem('bad-request', f'send the files image and mask; missing: {", ".join(missing)}')
    return Asked(files['image'], files['mask'], _checked(Options, options))


def _checked(model: type[Options], options: dict[str, str]) -> Options:
  try:
    return model.model_validate(options)
  except pydantic.ValidationError as error:
    raise Problem('bad-request', _sentence(error)) from error


def _from_json(data: bytes) -> Asked:
  try:
    sent = JsonRequest.model_validate_json(data)
  except pydantic.ValidationError as error:
    raise Problem('bad-request', _sentence(error)) from error
  return Asked(sent.image, sent.mask, sent)


def _sentence(error: pydantic.ValidationError) -> str:
  first = error.errors(include_input=False, include_url=False)[0]
  where = '.'.join(map(str, first['loc']))[:100]
  return f'{where}: {first["msg"]}' if where else first['msg']


def _accepted(request: Request) -> str | None:
  """The format that an Accept header names by itself; None: none, or several."""
  accept = request.headers.get('accept', '').strip().lower()
  return next((n for n, f in WRITTEN.items() if MEDIA_TYPES[f] == accept), None)
