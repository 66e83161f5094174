"""What the one worker does with a job: read, load, compile, run, write."""

import dataclasses
import time

from jaxinpaint.inference import repair
from jaxinpaint.masks.files import Inverting
from jaxinpaint.serving import jobs
from jaxinpaint.serving.forms import Asked
from jaxinpaint.serving.jobs import Job
from jaxinpaint.serving.limits import MEDIA_TYPES
from jaxinpaint.serving.models import Models

_INVERTING = Inverting('send invert_mask=true', 'leave out invert_mask')


@dataclasses.dataclass(frozen=True)
class Repaired:
  """The result of a job.

  Attributes:
    data: the content of the repaired file.
    media_type: of it.
    model: the name of the one that was used.
    warnings: sentences, each once.
    seconds: that it took, without waiting.
  """

  data: bytes
  media_type: str
  model: str
  warnings: tuple[str, ...]
  seconds: float


def work(models: Models, job: Job) -> Repaired:
  """Repairs a picture.

  Raises:
    InpaintError, UnreadableImage, MemoryError: the picture cannot be repaired.
    ModelFault: the model cannot be loaded.
  """
  begun, asked = time.monotonic(), job.request
  assert isinstance(asked, Asked)
  options = asked.options
  name = models.check(options.model)
  warnings: dict[str, None] = {}
  how = dict(invert_mask=options.invert_mask, check_mask=options.check_mask, format=asked.format)
  how['inverting'] = _INVERTING
  task = repair.read(asked.image, asked.mask, **how, warn=lambda s: warnings.setdefault(s))
  if not models.loaded(name):
    job.enter(jobs.LOADING)
  chosen = dict(max_side=options.max_side, blend=options.blend, exact_size=options.exact_size)
  painter = models.painter(name, **chosen)
  if task.hole.any():
    sizes = painter.seen_sizes(task.hole)
    estimate = models.compile_estimate(name, sizes)
    job.enter(jobs.RUNNING if estimate is None else jobs.COMPILING, estimate)
    with models.watch(name, sizes, lambda: job.enter(jobs.RUNNING)):
      rgb = task.complete(painter, options.sample)
  else:
    rgb = task.complete(painter)
  job.enter(jobs.WRITING)
  data = task.encode(rgb)
  kind = MEDIA_TYPES[task.format]
  return Repaired(data, kind, name, tuple(warnings), time.monotonic() - begun)
