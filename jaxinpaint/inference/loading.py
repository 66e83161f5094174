"""An `Inpainter` from files: a weights file, or the workdir of a training run."""

import dataclasses
import os
import pathlib

from jaxinpaint import systems
from jaxinpaint.inference.inpainter import Inpainter, InpaintError
from jaxinpaint.recipe import Inference, Variables
from jaxinpaint.weights import store

# Files that hold weights, but not as this library stores them.
_FOREIGN = ('.pth', '.pt', '.ckpt', '.bin', '.pkl', '.tar', '.th', '.h5', '.npz', '.msgpack')


def load(
  path: str | os.PathLike,
  *,
  step: int | None = None,
  batch_size: int = 8,
  seed: int = 0,
  max_side: int | None = None,
  pad_to: int = 1,
  blend: str = 'none',
) -> Inpainter:
  """Loads a system with its weights.

  Args:
    path: a weights file (NAME.safetensors with NAME.json beside it), or the workdir of a run.
    step: which checkpoint of a workdir; None: the newest.
    batch_size: see Inpainter, as seed, max_side, pad_to and blend.
    seed: of systems that draw random numbers.
    max_side: longer images are completed at reduced size.
    pad_to: sides are padded to a multiple of it.
    blend: 'poisson' or 'none'.

  Raises:
    FileNotFoundError: nothing is there.
    InpaintError: it is neither of the two, or an option is out of range.
    weights.store.StoreError: the file is damaged, lacks its JSON or does not fit its system.
    training.checkpoints.CheckpointError: no such checkpoint, or none that can be read.
  """
  path = pathlib.Path(path).expanduser()
  options = dict(batch_size=batch_size, seed=seed, max_side=max_side, pad_to=pad_to)
  options['blend'] = blend
  if path.is_dir():
    config, variables, name = _from_workdir(path, step)
    inference = systems.inference(config)
  elif step is not None:
    raise InpaintError(f'step {step} was given, but {path} is no workdir: leave it out')
  else:
    stored = _from_file(path)
    try:
      inference = systems.inference(stored.config)
    except ValueError as error:  # an unknown system or field: of another version, or edited
      raise store.StoreError(
        f'the configuration in {path.with_suffix(".json")} is not one that this version knows: '
        f'{error}. Import or save the weights anew.'
      ) from error
    check_fit(stored, inference, path)
    variables, name = Variables(stored.params, stored.stats), f'{stored.system} ({path.name})'
  variables = variables.pick(inference.networks)
  return Inpainter(inference, variables, inference.load_constants(), name=name, **options)


def check_fit(stored: store.Stored, inference: Inference, path: pathlib.Path) -> None:
  """Raises StoreError when the weights are not those of the networks that `output` reads."""
  own = Variables(stored.params, stored.stats).pick(inference.networks)
  part = dataclasses.replace(stored, params=own.params, stats=own.stats)
  try:
    store.check_shapes(part, *inference.shapes())
  except store.StoreError as error:
    raise store.StoreError(f'{path}: {error}') from error


def _from_workdir(path: pathlib.Path, step: int | None):
  # Orbax takes seconds to import, and weight files do not need it.
  from jaxinpaint.training import checkpoints

  if not (path / 'checkpoints').is_dir():
    inside = sorted(p.name for p in path.glob('*.safetensors'))
    hint = f'; name one of its weight files: {", ".join(inside[:8])}' if inside else ''
    raise InpaintError(
      f'{path} is no workdir of a training run (it has no folder checkpoints){hint}'
    )
  config, variables, step = checkpoints.restore_for_inference(path, step)
  return config, variables, f'{config.system} ({path.name}, step {step})'


def _from_file(path: pathlib.Path) -> store.Stored:
  if path.suffix.lower() in _FOREIGN:
    raise InpaintError(
      f'{path} is not a weights file of this library (.safetensors); a published checkpoint is '
      f'brought in by `python -m jaxinpaint.weights import SYSTEM {path} OUT`'
    )
  if not path.exists() and not path.with_name(path.name + '.safetensors').exists():
    near = next((p for p in path.absolute().parents if p.is_dir()), pathlib.Path('/'))
    inside = sorted(p.name for p in near.glob('*.safetensors'))
    hint = f'{near} holds {", ".join(inside[:8])}' if inside else f'the path exists up to {near}'
    raise FileNotFoundError(f'there are no weights at {path} ({hint}): correct the path')
  if path.exists() and path.suffix not in ('.safetensors', '.json', ''):
    raise InpaintError(
      f'{path} is not a weights file (.safetensors) and no workdir: give one of these'
    )
  return store.load(path)
