"""Errors as problem documents: RFC 9457, https://www.rfc-editor.org/rfc/rfc9457."""

import asyncio
import json
from collections.abc import Mapping

from absl import logging
from starlette.responses import Response

from jaxinpaint.inference import files
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.serving import jobs
from jaxinpaint.serving.limits import TooLarge
from jaxinpaint.serving.models import ModelFault, UnknownModel

CONTENT_TYPE = 'application/problem+json'
# {kind: (HTTP status, title)}.
KINDS = {
  'bad-request': (400, 'The request cannot be read'),
  'bad-picture': (400, 'The picture or the mask cannot be used'),
  'unknown-model': (400, 'There is no such model'),
  'unauthorised': (401, 'A token is needed'),
  'forbidden-origin': (403, 'Another site sent this request'),
  'not-found': (404, 'There is nothing here'),
  'wrong-method': (405, 'The method is not for this address'),
  'too-slow': (408, 'The request took too long to arrive'),
  'not-done': (409, 'The job has no result yet'),
  'cancelled': (410, 'The job was cancelled'),
  'too-large': (413, 'The request is too large'),
  'wrong-type': (415, 'The content type is not read'),
  'wrong-host': (421, 'The server does not have this name'),
  'too-many': (429, 'The server is busy'),
  'failure': (500, 'The server failed'),
  'model-failure': (503, 'The model cannot be loaded'),
  'ending': (503, 'The server is ending'),
  'time-limit': (504, 'The job took too long'),
}


class Problem(Exception):
  """Ends a request; see KINDS.

  Args:
    kind: of KINDS.
    detail: a sentence that says what is wrong and what to do.
    headers: of the answer.
  """

  def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None):
    super().__init__(detail)
    self.kind, self.detail, self.headers = kind, detail, dict(headers or {})

  @property
  def document(self) -> dict:
    """The members of the document."""
    status, title = KINDS[self.kind]
    return {
      'type': f'urn:jaxinpaint:{self.kind}',
      'title': title,
      'status': status,
      'detail': self.detail,
    }

  def response(self) -> Response:
    """The answer."""
    text = json.dumps(self.document, ensure_ascii=False)
    status = KINDS[self.kind][0]
    return Response(text, status, self.headers, media_type=CONTENT_TYPE)


def of(error: BaseException) -> Problem:
  """The problem behind an error; one that is a bug is logged, and its details are not told."""
  if isinstance(error, Problem):
    return error
  if isinstance(error, TooLarge):
    return Problem('too-large', str(error))
  if isinstance(error, UnknownModel):
    return Problem('unknown-model', str(error))
  if isinstance(error, ModelFault):
    return Problem('model-failure', str(error))
  if isinstance(error, (InpaintError, UnreadableImage)):
    return Problem('bad-picture', files.sentence(error))
  if isinstance(error, MemoryError):
    return Problem('too-large', 'memory does not suffice for this picture: make it smaller')
  if isinstance(error, jobs.Full):
    detail = 'the queue is full, and nothing of this request was kept: ask again later'
    return Problem('too-many', detail, {'Retry-After': '5'})
  if isinstance(error, jobs.Closed):
    return Problem('ending', 'the server is ending: ask again when it has started')
  if isinstance(error, jobs.Overdue):
    return Problem('time-limit', 'the job took longer than the limit: send a smaller picture')
  if isinstance(error, jobs.Cancelled):
    return Problem('cancelled', 'the job was cancelled: send it again if that was a mistake')
  if isinstance(error, asyncio.TimeoutError):
    return Problem('too-slow', 'the body did not arrive in time: send it faster, or send less')
  logging.error('a request failed', exc_info=error)
  return Problem('failure', 'this is a fault of the server, whose log says more')
