"""The input pipeline alone, in images per second and core: decoding, cropping, masks, all of it.

  python -m benchmarks.input [--size 256,512,1024:256,3000:256] [--masks irregular,strokes]
      [--seconds 2] [--json OUT]

The pictures are scikit-image's sample photographs as JPEG (quality 90, 4:2:0) with a shorter side
of `size` pixels, in memory for the decoders and as a folder of files for the whole pipeline, which
is `data.pipeline.Samples` as a training run reads it (random_resized and center crops, flips).
`3000:256` is pictures of 3000 pixels from which 256 x 256 are made: 12 megapixels in 4:3. They are
enlarged, so that their files are smaller than a camera's and decode faster. The whole pipeline runs
with `config.data.reduced_decode` off and on. Seconds are the process's own time on its core, so
that other programs on the core take nothing away; what is measured takes turns, so that a change of
the core's speed meets all of it.
"""

import io
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import cv2
import ml_collections
import numpy as np
import skimage.data
from absl import app, flags, logging
from PIL import Image

from jaxinpaint.data import crops, pipeline
from jaxinpaint.masks import spec as masks
from jaxinpaint.pictures import decode

SIZE = flags.DEFINE_list(
  'size',
  ['256', '512', '1024:256', '3000:256'],
  'Shorter sides of the pictures, or SIDE:SIDE of the crops.',
)
MASKS = flags.DEFINE_list('masks', ['irregular', 'strokes', 'lama', 'center:0.25'], 'Mask specs.')
SECONDS = flags.DEFINE_float('seconds', 2.0, 'For each figure.')
JSON = flags.DEFINE_string('json', None, 'Also write the rows here.')

_NAMES = ('astronaut', 'coffee', 'chelsea', 'rocket')
_ROUNDS = 5


def photographs(size: int) -> list[bytes]:
  """JPEG files of the sample photographs with a shorter side of `size`."""
  files = []
  for name in _NAMES:
    image = getattr(skimage.data, name)()
    scale = size / min(image.shape[:2])
    image = crops.resize(image, *(round(n * scale) for n in image.shape[:2]))
    out = io.BytesIO()
    Image.fromarray(image).save(out, 'JPEG', quality=90, subsampling='4:2:0')
    files.append(out.getvalue())
  return files


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
  """{name: function of a file's bytes -> uint8[H, W, 3]}, of the libraries that are there."""
  found = {
    'ours': decode.decode,
    'OpenCV': lambda b: cv2.cvtColor(
      cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    ),
    'Pillow': lambda b: np.asarray(Image.open(io.BytesIO(b)).convert('RGB')),
  }
  try:
    import simplejpeg

    found['simplejpeg'] = lambda b: simplejpeg.decode_jpeg(b, colorspace='RGB')
  except ImportError:
    logging.info('simplejpeg is not installed: left out.')
  return found


def rates(functions: dict[str, Callable[[int], object]], seconds: float) -> dict[str, float]:
  """Calls per second of CPU time of each; the best of several rounds in which they take turns."""
  best = dict.fromkeys(functions, 0.0)
  for _ in range(_ROUNDS):
    for name, function in functions.items():
      count, begun = 0, time.process_time()
      while (spent := time.process_time() - begun) < seconds / _ROUNDS:
        function(count)
        count += 1
      best[name] = max(best[name], count / spent)
  return best


def whole(
  folder: pathlib.Path, size: int, spec: str, crop: str, reduced: bool
) -> Callable[[int], object]:
  """The training pipeline's own sample i."""
  config = ml_collections.ConfigDict(
    dict(
      source=f'folder:{folder}', split='', size=size, crop=crop, flip=True, batch_size=1,
      masks=spec, workers=0, reduced_decode=reduced,
    )
  )  # fmt: skip
  samples = pipeline.Samples(config, seed=0)
  return lambda i: samples[i]


def stages(side: int, size: int, folder: pathlib.Path) -> dict[str, Callable[[int], object]]:
  """{name: what it does with the i-th picture}.

  Args:
    side: the pictures' shorter one.
    size: of the crops.
    folder: gets the files.
  """
  files = photographs(side)
  pictures = [decode.decode(f) for f in files]
  for i, data in enumerate(files):
    (folder / f'{i}.jpg').write_bytes(data)

  def decoding(function):
    return lambda i: function(files[i % len(files)])

  def masking(sampler):
    return lambda i: sampler(np.random.default_rng(i), size, size)

  def cropping(i):
    picture, rng = pictures[i % len(pictures)], np.random.default_rng(i)
    return crops.crop(picture, size, 'random_resized', rng)

  found = {f'decode, {name}': decoding(f) for name, f in decoders().items()}
  for reduction in decode.REDUCTIONS[1:]:
    found[f'decode, 1/{reduction} of the sides'] = decoding(
      lambda b, r=reduction: decode.plain_jpeg(b).samples(r)
    )
  found['crop, random_resized'] = cropping
  found |= {f'mask, {spec}': masking(masks.make(spec)) for spec in MASKS.value}
  for crop in ('random_resized', 'center'):
    for reduced in (False, True):
      name = f'whole pipeline, {crop}, {"reduced" if reduced else "plain"}'
      found |= {f'{name}, {s}': whole(folder, size, s, crop, reduced) for s in MASKS.value}
  return found


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  rows = []
  for text in SIZE.value:
    side, _, size = text.partition(':')
    with tempfile.TemporaryDirectory() as folder:
      found = rates(stages(int(side), int(size or side), pathlib.Path(folder)), SECONDS.value)
    for name, rate in found.items():
      rows.append({'size': text, 'what': name, 'per_second_and_core': rate})
      print(f'{text:>8s} px  {name:55s} {rate:9.1f} /s', flush=True)
  if JSON.value:
    pathlib.Path(JSON.value).write_text(json.dumps(rows, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
  app.run(main)
