"""Fills the holes of image files.

  python inpaint.py --weights misf.safetensors --image photo.jpg --mask hole.png --output out.png
  python inpaint.py --workdir runs/quickstart --image photos/ --mask masks/ --output repaired/

White is the hole in a mask. Folders pair by name; one mask file serves all images. The exit code is
0, 1 where some files of a folder failed, or 2 with a sentence where nothing could be done.
"""

import sys

from absl import app, flags, logging

from jaxinpaint.cli import command_line

WEIGHTS = flags.DEFINE_string(
  'weights', None, 'Weights file: NAME.safetensors, NAME.json beside it.'
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Or: the workdir of a training run.')
STEP = flags.DEFINE_integer('step', None, 'Checkpoint of --workdir; default the newest.')
IMAGE = flags.DEFINE_string('image', None, 'Image file, or a folder of them.')
MASK = flags.DEFINE_string('mask', None, 'Mask file, or a folder with a mask for each image.')
OUTPUT = flags.DEFINE_string('output', None, 'Output file, or a folder.')
INVERT_MASK = flags.DEFINE_bool('invert_mask', False, 'Black is the hole.')
OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace outputs that exist (never an input).')
FORMAT = flags.DEFINE_string(
  'format', None, "Format of an output folder's files: png, jpg, webp, bmp, tif; default as input."
)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'Images of equal size that run at once.')
MAX_SIDE = flags.DEFINE_integer(
  'max_side',
  1024,
  'Longer images are filled at this size and the hole is enlarged again, known pixels untouched; '
  '0: never (memory grows with the pixels).',
)
PAD_TO = flags.DEFINE_integer(
  'pad_to', 1, 'Pad sides to a multiple of it: 64 compiles less often for images of many sizes.'
)
PICTURES = flags.DEFINE_string(
  'pictures', None, 'Folder for what a system shows besides: a coarse result, edges, attention.'
)
BLEND = flags.DEFINE_enum(
  'blend',
  'none',
  ['none', 'poisson'],
  'poisson: fit what fills a hole to the colours around it (GLCIC does), for any system.',
)
SEED = flags.DEFINE_integer('seed', 0, 'Of systems that draw random numbers.')


def main(argv: list[str]) -> None:
  """Parses flags, loads the weights and fills the files."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  # jax takes seconds to import: flags are checked before.
  from jaxinpaint.cli import inpaint

  command_line.setup_logging(logging.WARNING)
  sys.exit(
    inpaint.run(
      weights=WEIGHTS.value,
      workdir=WORKDIR.value,
      step=STEP.value,
      image=IMAGE.value,
      mask=MASK.value,
      output=OUTPUT.value,
      invert_mask=INVERT_MASK.value,
      overwrite=OVERWRITE.value,
      format=FORMAT.value,
      batch_size=BATCH_SIZE.value,
      max_side=MAX_SIDE.value or None,
      pad_to=PAD_TO.value,
      blend=BLEND.value,
      seed=SEED.value,
      pictures=PICTURES.value,
    )
  )


@flags.multi_flags_validator(['weights', 'workdir', 'step'])
def _one_source(values: dict) -> bool:
  if (values['weights'] is None) == (values['workdir'] is None):
    raise flags.ValidationError('give either --weights or --workdir')
  if values['step'] is not None and values['workdir'] is None:
    raise flags.ValidationError('--step goes with --workdir')
  return True


if __name__ == '__main__':
  flags.mark_flags_as_required(['image', 'mask', 'output'])
  app.run(main)
