"""Measures what rows of the tables cost: parameters, operations, seconds, memory, training hours.

  jaxinpaint resources --row glcic=runs/celeba_glcic --row csa=config:celeba_csa --size 256
      [--row NAME=PATH ...] [--fills telea,ns] [--train_batch 4 | --notrain] [--output FILE.json]

Each row is measured in a process of its own, and its training in another, so that the peak of
memory of one is not taken for the other's. `config:NAME` is the experiment of that name, which need
not have been trained: no cost depends on the weights, so they are random.

Exit codes: 0; 1 with a sentence; 2 wrong flags.
"""

import json
import pathlib
from collections.abc import Sequence

from jaxinpaint.cli import command_line, experiments
from jaxinpaint.runtime import atomic


def _parser() -> command_line.Parser:
  parser = command_line.Parser('jaxinpaint resources', __doc__)
  add, path, whole = parser.add_argument, command_line.path, command_line.whole
  add(
    '--row',
    metavar='NAME=PATH',
    action='append',
    default=[],
    type=path,
    help='again and again: a run, a weights file or config:NAME.',
  )
  add(
    '--fills',
    type=command_line.words,
    default=[],
    help='classical fills: mean, telea, ns, biharmonic, patchmatch.',
  )
  add('--size', type=whole(), default=256, help='side of the images (default 256).')
  add('--max_batch', type=whole(), default=0, help='largest batch (default 8 on a CPU, else 64).')
  add('--repeats', type=whole(), default=20, help='timed calls (default 20).')
  parser.switch('train', True, help='on by default; --notrain leaves training out.')
  add('--train_batch', type=whole(), default=0, help="default the run's.")
  add('--train_size', type=whole(), default=0, help="default the run's.")
  add('--train_steps', type=whole(), default=3, help='timed, of each kind (default 3).')
  add('--output', type=path, metavar='FILE', help='JSON file to write.')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  # Here, not above: jax takes seconds to import, and a mistaken flag is told at once.
  from jaxinpaint.cost.resources import ResourceError, measure, table
  from jaxinpaint.evaluation import rows

  command_line.setup_logging()
  try:
    if not (given.row or given.fills):
      raise ResourceError('give what to measure: --row NAME=PATH, or --fills telea')
    output = pathlib.Path(given.output) if given.output else None
    if output and not output.absolute().parent.is_dir():
      raise ResourceError(f'--output {output}: there is no folder {output.parent}: make it first')
    paths = rows.split(given.row)
    measured = measure(
      {name: experiments.row(path) for name, path in paths.items()},
      given.fills,
      size=given.size,
      max_batch=given.max_batch,
      repeats=given.repeats,
      training=given.train,
      train_batch=given.train_batch,
      train_size=given.train_size,
      train_steps=given.train_steps,
    )
  except ValueError as error:
    command_line.say(parser.prog, error)
    return 1
  print(table(measured), end='')
  if output:
    text = json.dumps(measured.to_json(), indent=2, ensure_ascii=False)
    atomic.write(output, text + '\n')
    print(f'written: {output}')
  return 0
