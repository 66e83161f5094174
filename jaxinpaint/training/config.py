"""The settings that every run has, their defaults, and the checks before a run starts.

A config is a ConfigDict with the sections below. `model` and `loss` belong to the system
(`systems.default_config`); everything else is here. A config file starts from `base(system)` and
only changes what its experiment needs, so it shows the difference from the paper's defaults.

Before you add, rename or remove a field, read jaxinpaint/migrations.py: checkpoints and weights
files contain configs of earlier versions, and these must keep loading.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxinpaint import migrations, systems, trained
from jaxinpaint.training import averages
from jaxinpaint.weights import names


def base(system: str) -> ConfigDict:
  """The full config of `system` with every field that the train loop reads, locked."""
  config = systems.default_config(system)
  with config.unlocked():
    config.seed = 0
    # Weights to start from: a weights file or a workdir. Step and optimizers start from zero.
    config.init_from = ''
    config.data = ConfigDict(
      dict(
        source='sample',  # 'sample', 'folder:PATH', 'files:LIST.txt', 'tfds:NAME'
        split='train',
        eval_source='',  # '': as source
        eval_split='test',
        data_dir='',  # of tfds; '': its default
        size=256,
        crop='random',  # 'center', 'random', 'random_resized', 'resize', 'distorted'
        reduced_decode=False,  # of large JPEGs: faster, and a little different (docs/data.md)
        flip=True,
        colors='keep',  # 'permute': red, green, blue; 'jitter': change colours a little; 'strong'
        batch_size=4,  # over all devices and processes
        masks='irregular',
        masks_on_device=False,  # the train step draws them ('brush' masks only)
        workers=0,  # worker processes for decoding; 0: threads
      )
    )
    config.optimizers = ConfigDict()
    config.training = ConfigDict(
      dict(
        steps=350_000,
        ema_decay=0.0,  # 0: no averages, unless there is an ema_half_life
        # In its place: images after which half of an average is new, and the share of all images so
        # far that it is at most, for a fast start (0: no limit). See training/averages.py.
        ema_half_life=0.0,
        ema_rampup=0.0,
        ema_networks=('generator',),
        accumulate=1,  # steps averaged into one optimizer step
        nan='stop',  # 'skip': drop the step and go on; 'rollback': go back, use other batches
        nan_limit=10,  # skipped steps in a row, or returns to one checkpoint, that end the run
        # Devices along the batch, along split states, along the rows of each image (docs/pods.md).
        mesh=dict(data=-1, fsdp=1, spatial=1, fsdp_min_size=2**14),
        log_every=100,
        sample_every=5000,  # grids of input | mask | output | truth; 0: never
        sample_count=4,
        evaluate_every=5000,  # on evaluation.quick_count held-out images; 0: never
        # Evaluations in a row without a better checkpoint.best after which the run ends; its result
        # is then the best evaluated step, the first one included (docs/monitoring.md). 0: off.
        patience=0,
      )
    )
    config.checkpoint = ConfigDict(
      dict(
        every=1000,
        keep=3,  # the newest n ...
        keep_every=50_000,  # ... and every k-th step (0: none) ...
        best='psnr',  # ... and the best by this metric of the quick evaluations ('': none)
      )
    )
    config.evaluation = ConfigDict(
      dict(
        protocol='seed000',
        masks='irregular',
        count=500,
        batch_size=8,
        quick_count=32,
        at_end=False,  # the whole evaluation, with the classical fills, after the last step
      )
    )
  return config.lock()


def quicktest(config: ConfigDict) -> ConfigDict:
  """Makes a run small, in place: a few steps of every phase on the embedded sample, on a CPU.

  A system whose `recipe` defines `quicktest(config)` narrows its own networks and phases there; a
  run that starts from weights keeps theirs.
  """
  recipe = systems.module(config.system, 'recipe')
  config.data.update(
    dict(source='sample', split='train', eval_source='', eval_split='test', size=64, batch_size=8)
  )
  config.data.workers = 0
  config.training.update(dict(steps=6, log_every=2, sample_every=4, evaluate_every=4, patience=0))
  config.checkpoint.update(dict(every=3, keep=2, keep_every=0))
  config.evaluation.update(dict(count=4, quick_count=4, batch_size=4))
  if config.init_from:  # its weights fit these networks alone, which take no image smaller than
    ready = systems.inference(config)
    config.data.size, _ = ready.seen_size(config.data.size, config.data.size)
  elif hasattr(recipe, 'quicktest'):
    recipe.quicktest(config)
  return config


def validate(config: ConfigDict) -> None:
  """Raises ValueError, which names the field, for what would fail later or train nothing."""
  known = base(config.system)
  for section in known:
    if section not in config:
      raise ValueError(f'config lacks {section!r}: start from jaxinpaint.training.config.base()')
    if isinstance(known[section], ConfigDict) and section not in ('optimizers',):
      _check_keys(config[section], known[section], section)
  unknown = sorted(set(config) - set(known))
  if unknown:
    raise ValueError(f'config has no {", ".join(unknown)}; it has: {", ".join(sorted(known))}')
  unknown = sorted(set(config.training.mesh) - set(known.training.mesh))
  if unknown:
    raise ValueError(
      f'config.training.mesh has no {", ".join(unknown)}; it has: {", ".join(known.training.mesh)}'
    )
  if config.version != migrations.VERSION:
    raise ValueError(
      f'config.version {config.version!r} must be {migrations.VERSION}, as '
      'jaxinpaint.training.config.base() sets it; stored configs are converted when they are read'
    )
  if config.dtype not in ('float32', 'bfloat16'):
    raise ValueError(f"config.dtype {config.dtype!r} must be 'float32' or 'bfloat16'")
  positive = {
    'training.steps': config.training.steps,
    'training.accumulate': config.training.accumulate,
    'training.log_every': config.training.log_every,
    'training.nan_limit': config.training.nan_limit,
    'checkpoint.every': config.checkpoint.every,
    'checkpoint.keep': config.checkpoint.keep,
    'data.size': config.data.size,
    'data.batch_size': config.data.batch_size,
  }
  for name, value in positive.items():
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'config.{name} {value!r} must be an integer of at least 1')
  _check_patience(config)
  for name in ('sample_every', 'evaluate_every'):
    if config.training[name] < 0:
      raise ValueError(f'config.training.{name} {config.training[name]} must be >= 0 (0: never)')
  averages.check(config.training)
  policies = ('stop', 'skip', 'rollback')
  if config.training.nan not in policies:
    raise ValueError(
      f'config.training.nan {config.training.nan!r} must be one of: {", ".join(policies)}'
    )
  if config.init_from and not trained.locate(config.init_from)[0].exists():
    raise ValueError(
      f'config.init_from {config.init_from!r} does not exist: give a weights file, the workdir of '
      'a run, or the name of weights: of published ones (`jaxinpaint weights list`), or of those '
      f'that come with the library: {", ".join(names.FILES)}'
    )


def _check_patience(config: ConfigDict) -> None:
  patience = config.training.patience
  if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
    raise ValueError(
      f'config.training.patience {patience!r} must be a number of evaluations, or 0 for no early '
      'stop'
    )
  for name in ('training.evaluate_every', 'checkpoint.best'):
    value = config[name.split('.')[0]][name.split('.')[1]]
    if patience and not value:
      raise ValueError(
        f'config.training.patience {patience} waits for a better evaluation, but config.{name} is '
        f'{value!r}: set it, or config.training.patience=0'
      )


def _check_keys(got: ConfigDict, known: ConfigDict, section: str) -> None:
  wrong = {'unknown': set(got) - set(known), 'missing': set(known) - set(got)}
  words = [f'{what}: {", ".join(sorted(keys))}' for what, keys in wrong.items() if keys]
  if words:
    raise ValueError(f'config.{section}, {"; ".join(words)}; it has: {", ".join(sorted(known))}')


def differences(old: Any, new: Any, prefix: str = '') -> list[str]:
  """['data.size: 128 -> 256', ...] between two configs (mappings), sorted."""
  old, new = (c.to_dict() if isinstance(c, ConfigDict) else dict(c) for c in (old, new))
  lines = []
  for key in sorted(set(old) | set(new)):
    a, b = old.get(key), new.get(key)
    if isinstance(a, dict) and isinstance(b, dict):
      lines += differences(a, b, f'{prefix}{key}.')
    elif _listed(a) != _listed(b) or (key in old) != (key in new):
      was, now = (repr(c[key]) if key in c else '(none)' for c in (old, new))
      lines.append(f'{prefix}{key}: {was} -> {now}')
  return lines


def _listed(value: Any) -> Any:
  """Turns tuples into lists, as JSON does."""
  if isinstance(value, list | tuple):
    return [_listed(v) for v in value]
  return value
