"""What the page is told of all runs, and the file that it is saved as."""

import io
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxinpaint.watching import page
from jaxinpaint.watching.run import WAITING
from jaxinpaint.watching.runs import Runs

_WITH_THE_CLOCK = ('version', 'state', 'seen', 'left')
_MOST_PICTURES = 100  # of a run in a file


def answer(runs: Runs, known: Mapping[int, str] | None = None, whole: bool = False) -> dict:
  """{'runs': [of `Run.read`, with 'id'], 'left_out': runs}.

  Args:
    runs: that are shown.
    known: {number: version} of what the asker has; of such runs only what the clock changes.
    whole: reads all there is, instead of a part at each call.
  """
  shown = []
  for number, run in runs.find().items():
    document = run.read(whole)
    if known and known.get(number) == document['version']:
      document = {name: document[name] for name in _WITH_THE_CLOCK}
    shown.append({'id': number, **document})
  return {'runs': shown, 'left_out': runs.left_out}


def save(runs: Runs, budget: int) -> str:
  """The runs of now as one HTML file.

  Args:
    runs: that are shown.
    budget: bytes that the pictures may take. Where they are more, they become JPEG; where that is
      too much, some are left out, evenly over the steps, and the page says how many.

  Raises:
    ValueError: a folder holds no run.
  """
  from jaxinpaint.report.gallery import Album  # with jax, which only this needs

  document = answer(runs, whole=True)
  for run in document['runs']:
    if run['state'] == WAITING:
      raise ValueError(f'{run["folder"]} holds no training run: give the --workdir of one')
  album, asked = Album(budget), 0
  for run in document['runs']:
    for step in _spread([sample['step'] for sample in run['samples']]):
      data = runs.get(run['id']).sample(step)
      if data is not None:
        asked += 1
        album.ask((run['id'], step), np.asarray(Image.open(io.BytesIO(data)).convert('RGB')))
  album.close()
  pictures: dict[int, dict[int, str]] = {}
  total = 0
  for run in document['runs']:
    uris = {s['step']: album.get((run['id'], s['step'])) for s in run['samples']}
    pictures[run['id']] = {step: uri for step, uri in uris.items() if uri}
    total += len(run['samples'])
    run['samples'] = [s for s in run['samples'] if s['step'] in pictures[run['id']]]
  kept = sum(map(len, pictures.values()))
  more: dict[str, Any] = {'saved': time.time(), 'left_out_pictures': total - kept}
  return page.saved(document | more | {'quality': album.quality}, pictures)


def _spread(steps: list[int]) -> Iterator[int]:
  """At most _MOST_PICTURES steps: the last, the first, the middle one, those between, and so on.

  So whatever its end is cut off, the rest is spread evenly.
  """
  if len(steps) > _MOST_PICTURES:
    places = np.linspace(0, len(steps) - 1, _MOST_PICTURES).round().astype(int)
    steps = [steps[i] for i in places]
  given: dict[int, None] = dict.fromkeys(steps[-1:] + steps[:1])
  width = len(steps)
  while width > 1:
    width = -(-width // 2)
    given |= dict.fromkeys(steps[::width])
  yield from given
