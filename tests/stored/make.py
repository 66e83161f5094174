"""Writes the stored things of a version: what its users have on their disks, in miniature.

  git worktree add ../then COMMIT && cd ../then
  PYTHONPATH=. python PATH/TO/tests/stored/make.py PATH/TO/tests/stored/VERSION

It is run once for each released version, with the code of that version, and its results are never
written again: test_stored.py holds that all later versions load, continue and measure them alike.

  0.1.0   commit 1e0204a, jax 0.10.2, CPU

VERSION/ holds
  image.png, mask.png       a photograph of scikit-image's wheel, 64 x 64, and a hole
  NAME.tar.xz               the workdir of a run: config.json, metrics.jsonl, checkpoints/2 and /4
  NAME.json, NAME.png       what that version made of it: see `expected` below
  weights.safetensors       exported weights and weights.png, the picture
  configs.json              {NAME: the whole config} of every experiment in configs/ at that time

The networks are as narrow as they can be, so that all of it is small. A run is of 6 steps and its
last checkpoint is thrown away: a resumed run takes two, and has the numbers of the first one.
"""

import importlib
import json
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import cv2
import jax
import numpy as np
from PIL import Image
from skimage import data

import jaxinpaint
from jaxinpaint import systems
from jaxinpaint.evaluation import command
from jaxinpaint.inference import loading
from jaxinpaint.training import checkpoints, loop
from jaxinpaint.weights import store

SIZE = 64
STEPS, KEPT = 6, (2, 4)
COUNT = 3  # images of the evaluation

# {system: (experiment, config.model, config.loss, config.phases)}: what differs from its quicktest
RUNS = {
  'mesff': (
    'places2_mesff',
    dict(width=2, attention_size=16, attention_hidden=4),
    dict(discriminator_width=1),
    {},
  ),
  'aotgan': ('places2_aotgan', dict(width=2), dict(discriminator_width=1), {}),
  'edgeconnect': (
    'places2_edgeconnect',
    dict(width=2),
    dict(discriminator_width=1),
    dict(edge=2, inpainting=2, joint=2),
  ),
  'jpgnet': (
    'places2_jpgnet',
    dict(width=2, kpn_width=1, kernel_size=1),
    dict(discriminator_width=1),
    dict(edge=1, inpainting=1, joint=1, kpn1=2, kpn2=1),
  ),
  'deepfillv1': (
    'places2_deepfillv1',
    dict(width=2, critic_width=1),
    dict(critic_steps=2),
    dict(coarse=2, joint=-1),
  ),
  'glcic': (
    'celeba_glcic',
    dict(width=2, discriminator_width=2, discriminator_features=2),
    {},
    dict(completion=2, discriminator=2, joint=2),
  ),
  'seresnet_cx': (
    'celeba_seresnet_cx',
    dict(width=2, discriminator_width=1, discriminator_features=2),
    {},
    dict(completion=2, discriminator=2, joint=2),
  ),
  'ctsdg': (
    'celeba_ctsdg',
    dict(width=2, levels=4, discriminator_width=1),
    {},
    dict(training=4, finetuning=2),
  ),
  # Without the structure network, whose StyleGAN would be larger than all else together.
  'lfr': (
    'celebahq_lfr_variant1',
    dict(texture_width=1, critic_width=1),
    {},
    dict(structure=0, texture=6),
  ),
}


def config_of(name: str):
  """The run's config."""
  experiment, model, loss, phases = RUNS[name]
  config = importlib.import_module(f'configs.{experiment}').get_config('quicktest')
  config.model.update(model)
  config.loss.update(loss)
  if phases:
    config.phases.update(phases)
  config.data.batch_size = 2
  config.data.size = SIZE
  config.training.update(dict(steps=STEPS, log_every=1, sample_every=0, evaluate_every=0))
  config.training.mesh.data = 1  # a batch of two, on however many devices
  config.checkpoint.update(dict(every=2, keep=3, best=''))
  config.evaluation.update(dict(count=COUNT, quick_count=2, batch_size=2))
  for optimizer in config.optimizers.values():
    if optimizer.name == 'adam':  # so fast that six steps change something
      optimizer.learning_rate = 1e-2
  with config.unlocked():
    if name == 'edgeconnect':  # an optimizer that counts steps
      generator = config.optimizers.generator
      generator.schedule, generator.schedule_args = 'cosine_decay', dict(decay_steps=20)
    if name == 'aotgan':  # averages; clipped and accumulated steps
      config.training.ema_decay = 0.5
      config.training.accumulate = 2
      config.optimizers.generator.clip_norm = 1.0
  return config


def picture() -> tuple[np.ndarray, np.ndarray]:
  """uint8[64, 64, 3] and bool[64, 64]."""
  image = cv2.resize(data.astronaut()[:400, 50:450], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
  mask = np.zeros((SIZE, SIZE), bool)
  mask[20:44, 12:30] = mask[36:58, 26:52] = True
  return image, mask


def complete(path: pathlib.Path, out: pathlib.Path) -> None:
  """Writes what the weights at `path` make of the picture."""
  done = loading.load(path)(*picture())
  Image.fromarray(done).save(out, optimize=True)


def evaluate(workdir: pathlib.Path, output: pathlib.Path) -> dict[str, dict[str, float]]:
  """{bin: {metric: mean}} of the newest checkpoint, as evaluate.py measures it."""
  request = command.Request(
    workdir=workdir, fills=('none',), output=output, bins=('10-30', '30-50')
  )
  results = command.prepare(request).run()
  (row,) = results.predictors
  host = results.protocol.host_metrics
  return {
    b.label: {m.name: results.summary(row, b, m.name).mean for m in host} for b in results.bins
  }


def make(name: str, folder: pathlib.Path, scratch: pathlib.Path) -> None:
  """One run, and what is expected of it."""
  workdir = scratch / name
  last = loop.train(config_of(name), workdir)
  rows = [json.loads(s) for s in (workdir / 'metrics.jsonl').read_text().splitlines()]
  rows = [r for r in rows if r['step'] > KEPT[-1]]
  shutil.rmtree(workdir / 'checkpoints' / str(STEPS))
  then = checkpoints.read_weights(workdir)['params']
  moved = {
    network: float(np.sqrt(sum(np.sum((np.asarray(a) - np.asarray(b)) ** 2) for a, b in pairs)))
    for network, tree in (last.params | last.ema).items()  # averages, as in `then`
    for pairs in [list(zip(jax.tree.leaves(tree), jax.tree.leaves(then[network]), strict=True))]
  }
  losses = {
    str(r['step']): {k: v for k, v in r.items() if '/' in k and k.split('/')[0] in UPDATES[name]}
    for r in rows
  }
  expected = {
    # of the two resumed steps: every term that was logged
    'losses': losses,
    # {network: length of the way that its parameters went in them}
    'moved': moved,
    # of checkpoint 4
    'evaluation': evaluate(workdir, scratch / f'{name}-evaluation'),
  }
  complete(workdir, folder / f'{name}.png')
  (folder / f'{name}.json').write_text(json.dumps(expected, indent=1) + '\n')
  with tarfile.open(folder / f'{name}.tar.xz', 'w:xz', preset=9) as tar:
    for part in ('config.json', 'metrics.jsonl', *(f'checkpoints/{s}' for s in KEPT)):
      tar.add(workdir / part, f'{name}/{part}', filter=_anonymous)
  if name == 'aotgan':
    config, params, stats, step = checkpoints.restore_for_inference(workdir)
    store.save(folder / 'weights', name, config, params, stats, source=f'{name}, step {step}')
    complete(folder / 'weights.safetensors', folder / 'weights.png')


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
  info.uid = info.gid = info.mtime = 0
  info.uname = info.gname = ''
  return info


def configs() -> dict:
  """{experiment: its whole config}."""
  found = {}
  for path in sorted(pathlib.Path('configs').glob('*.py')):
    module = importlib.import_module(f'configs.{path.stem}')
    config = module.get_config() if hasattr(module, 'get_config') else {}
    if 'system' in config:
      found[path.stem] = json.loads(config.to_json_best_effort())
  return found


UPDATES: dict[str, set[str]] = {}


def main() -> None:
  """See the module."""
  folder = pathlib.Path(sys.argv[1])
  folder.mkdir(parents=True, exist_ok=True)
  names = sys.argv[2:] or list(RUNS)
  print(jaxinpaint.__version__, jaxinpaint.__file__, jax.__version__)
  image, mask = picture()
  Image.fromarray(image).save(folder / 'image.png', optimize=True)
  Image.fromarray((255 * mask).astype(np.uint8)).save(folder / 'mask.png', optimize=True)
  lines = [f'{json.dumps(k)}: {json.dumps(v)}' for k, v in configs().items()]
  (folder / 'configs.json').write_text('{\n' + ',\n'.join(lines) + '\n}\n')
  with tempfile.TemporaryDirectory() as scratch:
    for name in names:
      phases = systems.make_recipe(config_of(name)).phases
      UPDATES[name] = {u.name for p in phases for u in p.updates}
      make(name, folder, pathlib.Path(scratch))
      print(name, (folder / f'{name}.tar.xz').stat().st_size)


if __name__ == '__main__':
  main()
