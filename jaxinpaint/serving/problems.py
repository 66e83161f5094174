"""Which problem document an error becomes."""

import asyncio

from absl import logging

from jaxinpaint.inference import files
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.serving import jobs
from jaxinpaint.serving.limits import TooLarge
from jaxinpaint.serving.models import ModelFault, UnknownModel
from jaxinpaint.web.problems import Problem


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
