"""What `inpaint.py` does once its flags are read: load, fill, report; user errors in a sentence."""

import os
import sys

from jaxinpaint.inference import files, loading, pairs
from jaxinpaint.inference.inpainter import InpaintError
from jaxinpaint.weights.store import StoreError


def run(
  *,
  weights: str | os.PathLike | None = None,
  workdir: str | os.PathLike | None = None,
  step: int | None = None,
  image: str | os.PathLike,
  mask: str | os.PathLike,
  output: str | os.PathLike,
  invert_mask: bool = False,
  overwrite: bool = False,
  format: str | None = None,
  batch_size: int = 8,
  max_side: int | None = 1024,
  pad_to: int = 1,
  blend: str = 'none',
  seed: int = 0,
  pictures: str | os.PathLike | None = None,
) -> int:
  """The exit code: 0; 1: some files of a folder failed; 2: nothing could be done.

  Args:
    weights: a weights file, or else
    workdir: a training run's.
    step: its checkpoint.
    image: see `files.inpaint_files`, as mask, output, invert_mask, overwrite and format.
    mask: file or folder.
    output: file or folder.
    invert_mask: black is the hole.
    overwrite: replace outputs.
    format: of an output folder's files.
    batch_size: see `Inpainter`, as max_side, pad_to, blend and seed.
    max_side: longer images are filled at this size.
    pad_to: sides are padded to a multiple of it.
    blend: 'poisson' or 'none'.
    seed: of systems that draw random numbers.
    pictures: folder for what the system shows besides its output.
  """
  errors: tuple[type[Exception], ...] = (*files.USER_ERRORS, StoreError)
  if workdir is not None:
    from jaxinpaint.training.checkpoints import CheckpointError

    errors = (*errors, CheckpointError)
  try:
    if weights is not None and os.path.isdir(weights):
      raise InpaintError(f'{weights} is a folder: give it as --workdir, or name a weights file')
    if workdir is not None and not os.path.isdir(workdir):
      raise InpaintError(f'there is no workdir {workdir}: give the --workdir of a training run')
    # Paths first: they are checked in no time, and loading takes seconds.
    pairs.find(image, mask, output, overwrite=overwrite, format=format)
    inpainter = loading.load(
      weights if weights is not None else workdir,
      step=step,
      batch_size=batch_size,
      max_side=max_side,
      pad_to=pad_to,
      blend=blend,
      seed=seed,
    )
    report = files.inpaint_files(
      inpainter,
      image,
      mask,
      output,
      invert_mask=invert_mask,
      overwrite=overwrite,
      format=format,
      pictures=pictures,
    )
  except errors as error:
    print(f'inpaint.py: {files.sentence(error)}', file=sys.stderr)
    return 2
  if report.failed:
    total = len(report.written) + len(report.failed)
    print(f'inpaint.py: {len(report.failed)} of {total} images failed:', file=sys.stderr)
    for path, reason in report.failed:
      print(f'  {path}: {reason}'.replace(f'{path}: {path}: ', f'{path}: '), file=sys.stderr)
    return 1
  print(f'{len(report.written)} images written by {inpainter.name}')
  return 0
