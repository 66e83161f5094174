"""Measures systems on a data set with a set of masks, beside the classical fills; or files.

  python evaluate.py --workdir runs/quickstart
  python evaluate.py --workdir runs/mesff --step 350000 --data folder:photos --masks folder:holes
  python evaluate.py --weights misf_places2.safetensors --data tfds:places365_small \
    --split validation --count 500
  python evaluate.py --row mesff=runs/mesff --row before=runs/mesff@100000 \
    --row misf=misf.safetensors --row theirs=outputs/ --baseline misf --output out/compared
  python evaluate.py --real_dir photos --fake_dir mine=outputs [--mask_dir holes]

The report (metrics.json, per_image.csv, report.md, grids) goes to WORKDIR/evaluation/STEP or to
--output; docs/evaluation.md says what its numbers mean.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxinpaint.cli import command_line

CONFIG = config_flags.DEFINE_config_file(
  'config', None, "Experiment whose data and evaluation settings hold; default the checkpoint's."
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a training run.')
STEP = flags.DEFINE_integer('step', None, 'Which checkpoint of the run; default the newest.')
WEIGHTS = flags.DEFINE_string('weights', None, 'Or a weights file of this library (.safetensors).')
ROW = flags.DEFINE_multi_string(
  'row',
  [],
  'NAME=PATH, again and again: WORKDIR, WORKDIR@STEP, a .safetensors file, a folder of outputs.',
)
SYSTEM = flags.DEFINE_string('system', '', 'Refuse weights of another system.')
DATA = flags.DEFINE_string('data', '', "'folder:PATH', 'files:LIST.txt', 'tfds:NAME', 'sample'.")
SPLIT = flags.DEFINE_string('split', None, "Split of --data; '' takes a folder as it is.")
COUNT = flags.DEFINE_integer('count', None, 'How many images, spread over the set.')
SIZE = flags.DEFINE_integer('size', None, 'Side of the images: centre squares, resized.')
MASKS = flags.DEFINE_string('masks', '', "'irregular', 'strokes', ..., or a folder of mask files.")
INVERT = flags.DEFINE_bool('invert_mask', False, 'The mask files have black holes.')
BINS = flags.DEFINE_list('bins', [], 'Shares of hole in percent, as 10-20,20-40,40-60.')
SEED = flags.DEFINE_integer('seed', 0, 'Of the masks.')
BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Images at a time; changes no number.')
FILLS = flags.DEFINE_list(
  'fills',
  ['mean', 'telea', 'ns'],
  'Classical fills beside it: mean, telea, ns, biharmonic, patchmatch, all or none.',
)
CLASSICAL = flags.DEFINE_bool('classical', True, '--noclassical: as --fills none.')
BASELINE = flags.DEFINE_string('baseline', '', 'The row that the others are compared with.')
SAMPLES = flags.DEFINE_integer('samples', None, 'Outputs for each image, of systems that sample.')
PROTOCOL = flags.DEFINE_string('protocol', '', 'What is measured and how: docs/protocols.md.')
PUBLISHED = flags.DEFINE_string(
  'published', None, "Data set whose published rows stand beside: Places2, CelebA, ..., 'none'."
)
ON_UNREADABLE = flags.DEFINE_enum(
  'on_unreadable', 'skip', ['skip', 'fail'], 'What becomes of images that cannot be read.'
)
RESUME = flags.DEFINE_bool('resume', True, 'Go on with an evaluation that was interrupted.')
REAL_DIR = flags.DEFINE_string('real_dir', None, 'Files instead of models: the true pictures,')
FAKE_DIR = flags.DEFINE_multi_string('fake_dir', [], 'outputs of the same names, NAME=DIR or DIR,')
MASK_DIR = flags.DEFINE_string('mask_dir', None, 'and their masks, if there are any.')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, of several.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which this is, from 0.')
NETWORK = flags.DEFINE_multi_string(
  'network', [], "Weights of one's own for FID or LPIPS: inception=FILE, lpips_alex_trunk=FILE, ..."
)
RESOURCES = flags.DEFINE_bool('resources', False, 'Also what each row costs: time, memory, FLOPs.')
OUTPUT = flags.DEFINE_string('output', None, 'Folder of the report; an earlier one is kept.')


def main(argv: list[str]) -> None:
  """Parses flags and evaluates."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  # jax takes seconds to import: flags are checked before.
  from jaxinpaint.cli import evaluate
  from jaxinpaint.runtime import distributed

  command_line.setup_logging()
  try:
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
  except distributed.ClusterError as error:
    sys.exit(f'evaluate.py: {error}')
  request = evaluate.Request(
    config=CONFIG.value,
    workdir=WORKDIR.value,
    step=STEP.value,
    weights=WEIGHTS.value,
    rows=ROW.value,
    system=SYSTEM.value,
    data=DATA.value,
    split=SPLIT.value,
    count=COUNT.value,
    size=SIZE.value,
    masks=MASKS.value,
    invert_mask=INVERT.value,
    bins=BINS.value,
    seed=SEED.value,
    batch_size=BATCH_SIZE.value,
    fills=FILLS.value if CLASSICAL.value else ['none'],
    baseline=BASELINE.value,
    samples=SAMPLES.value,
    on_unreadable=ON_UNREADABLE.value,
    resume=RESUME.value,
    real_dir=REAL_DIR.value,
    fake_dirs=FAKE_DIR.value,
    mask_dir=MASK_DIR.value,
    networks=NETWORK.value,
    resources=RESOURCES.value,
    protocol=PROTOCOL.value,
    published=PUBLISHED.value,
    output=OUTPUT.value,
  )
  try:
    evaluate.prepare(request).run()
  except evaluate.USER_ERRORS as error:
    logging.debug('traceback', exc_info=True)
    sys.exit(f'evaluate.py: {error}')


if __name__ == '__main__':
  app.run(main, flags_parser=command_line.parse_flags)
