"""What the tests of the server share: pictures as files, a server with a toy system."""

import io
import time

import numpy as np
import toy_system
from PIL import Image
from starlette.testclient import TestClient

from jaxinpaint.serving import app, jobs
from jaxinpaint.serving.limits import Limits
from jaxinpaint.serving.models import Models
from jaxinpaint.web import problems

URL = '/api/v1/inpaint'
HEIGHT, WIDTH = 20, 24
# Seconds after which a test takes the server for hung: on a busy machine it may be slow.
PATIENCE = 240.0


def encoded(array, format='PNG', **options) -> bytes:
  out = io.BytesIO()
  Image.fromarray(array).save(out, format, **options)
  return out.getvalue()


def photo(height=HEIGHT, width=WIDTH, channels=3) -> np.ndarray:
  return np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)


IMAGE = encoded(photo())
MASK = encoded(toy_system.hole(HEIGHT, WIDTH))


def decoded(data: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(data)))


__all__ = ['Image', 'app', 'jobs', 'np', 'toy_system']

LIMITS = Limits()


def models(limits=LIMITS, painter=None, names=('toy',)) -> Models:
  load = lambda path: painter or toy_system.inpainter()
  return Models({name: name for name in names}, limits, load)


def client(limits=LIMITS, painter=None, names=('toy',), base_url='http://127.0.0.1', **options):
  """A client of a running server, to be used in a `with`."""
  application = app.create(models(limits, painter, names), limits, **options)
  return TestClient(application, base_url=base_url, raise_server_exceptions=False)


def until(condition):
  end = time.monotonic() + PATIENCE
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def problem(answer, status, kind=None):
  """The sentence of an error, after checks of its form."""
  assert answer.status_code == status, answer.text
  assert answer.headers['content-type'].startswith(problems.CONTENT_TYPE)
  document = answer.json()
  assert set(document) == {'type', 'title', 'status', 'detail'} and document['status'] == status
  assert document['type'].startswith('urn:jaxinpaint:') and document['detail']
  if kind:
    assert document['type'] == f'urn:jaxinpaint:{kind}'
  return document['detail']


def files(image=IMAGE, mask=MASK) -> dict:
  return {'image': ('photo', image), 'mask': ('hole', mask)}


class Slow:
  """Stands for an inpainter: holds its jobs until it is told to go on."""

  def __init__(self, gate=None, before=lambda: None):
    self._gate, self._before = gate, before
    self.done = 0
    toy = toy_system.inpainter()
    self.name, self.max_side, self.predictor = toy.name, toy.max_side, _Held(toy.predictor, self)

  def hold(self):
    self._before()
    if self._gate is not None:
      assert self._gate.wait(PATIENCE)
    self.done += 1


class _Held:
  def __init__(self, predictor, slow):
    self._predictor, self._slow = predictor, slow

  def __getattr__(self, name):
    return getattr(self._predictor, name)

  def padded_to(self, multiple):
    return _Held(self._predictor.padded_to(multiple), self._slow)

  def for_sizes(self, sizes):
    return _Held(self._predictor.for_sizes(sizes), self._slow)

  def __call__(self, *arguments, **options):
    self._slow.hold()
    return self._predictor(*arguments, **options)
