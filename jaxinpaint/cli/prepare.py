"""Downloads and prepares a tfds set in the form that training reads (array_record).

  jaxinpaint prepare places365_small [--data_dir DIR] [--manual_dir DIR]

Sets whose files must be fetched by hand are named in docs/data.md; the command says what is
missing. Some sets need TensorFlow for this step only: pip install 'jaxinpaint[tf]'.
`python -m jaxinpaint.data.prepare` is the same command.

Exit codes: 0; 1 with a sentence; 2 wrong flags.
"""

from collections.abc import Sequence

from jaxinpaint.cli import command_line


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = command_line.Parser('jaxinpaint prepare', __doc__, 'NAME [flags]')
  add, path = parser.add_argument, command_line.path
  add('name', metavar='NAME', help='or NAME/CONFIG: places365_small, celeb_a_hq/256.')
  add('--data_dir', type=path, default='', metavar='DIR', help='default ~/tensorflow_datasets.')
  add(
    '--manual_dir',
    type=path,
    default='',
    metavar='DIR',
    help='files fetched by hand; default DATA_DIR/downloads/manual.',
  )
  given = parser.parse_args(argv)
  from jaxinpaint.data.prepare import prepare

  try:
    print(prepare(given.name, given.data_dir, given.manual_dir))
  except (ValueError, OSError, RuntimeError) as error:  # downloads fail with an OSError
    command_line.say(parser.prog, error)
    return 1
  return 0
