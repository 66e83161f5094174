"""What the commands share: their flags, whose mistakes end in a sentence, and a readable log."""

import argparse
import difflib
import io
import logging as standard_logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence

WRONG_USAGE = 2  # the exit code of a mistaken flag

Command = Callable[[Sequence[str]], int]  # from its flags to its exit code


class Parser(argparse.ArgumentParser):
  """argparse in this library's voice: a mistake is one line on stderr and exit code 2.

  A command with `--config` also takes every field of its config, `--config.data.size=64`. They are
  kept in `fields` until `experiments.load` knows the config.

  Args:
    command: as a person types it, 'jaxinpaint train'.
    description: the module's docstring: what `--help` shows above the flags.
    arguments: what stands after the command.
  """

  def __init__(self, command: str, description: str, arguments: str = '[flags]'):
    super().__init__(
      prog=command,
      usage=f'{command} {arguments}',
      description=description.strip(),
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def switch(self, name: str, default: bool = False, help: str = '') -> None:
    """Adds a flag that is on or off: --name, --noname, --name=true, --name=false."""
    self.add_argument(f'--{name}', action='store_true', default=default, help=help)
    for value in (True, False):
      spellings = [f'--{name}={word}' for word in (str(value), str(value).lower(), int(value))]
      spellings += [] if value else [f'--no{name}']
      self.add_argument(
        *spellings, dest=name, action=f'store_{str(value).lower()}', default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
      )  # fmt: skip

  def config(self, help: str) -> None:
    """Adds --config, and with it the flags of all its fields."""
    self.add_argument(
      '--config', metavar='NAME', help=f'{help} Any field can be set: --config.data.size=128.'
    )

  def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
    """argparse's, and `fields`: what stands for the config's fields, ['--config.seed=1', ...]."""
    for stream in (sys.stdout, sys.stderr):
      if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
        stream.reconfigure(errors='backslashreplace')
    given, rest = self.parse_known_args(args, namespace)
    given.fields = rest if hasattr(given, 'config') else []
    for i, word in enumerate(rest):
      follows_a_field = given.fields and i > 0 and _is_field(rest[i - 1])
      if (given.fields and _is_field(word)) or (follows_a_field and not word.startswith('--')):
        continue
      self.error(self._unknown(word))
    return given

  def _unknown(self, word: str) -> str:
    if not word.startswith('-'):
      return f'unexpected argument {word!r}'
    flag = word.split('=')[0]
    known = [s for a in self._actions if a.help != argparse.SUPPRESS for s in a.option_strings]
    near = difflib.get_close_matches(flag, known, n=1)
    return f'there is no flag {flag}' + (f'; is {near[0]} meant?' if near else '')

  def error(self, message: str):
    """Ends the process."""
    message = re.sub(r'^argument ([^:]*): ', r'\1: ', message)
    say(self.prog, f'{message} (--help lists the flags)')
    sys.exit(WRONG_USAGE)


def choose(
  command: str,
  description: str,
  commands: Mapping[str, tuple[str, Command]],
  argv: Sequence[str] | None = None,
) -> int:
  """Runs the command that the first word names; the others are its flags.

  Args:
    command: what stands before the word, 'jaxinpaint'.
    description: what --help shows above the list.
    commands: {word: (a line about it, what it runs)}.
    argv: default the process's.

  Returns:
    The exit code.
  """
  first, *others = (sys.argv[1:] if argv is None else argv) or ['']
  if first in commands:
    return commands[first][1](others)
  if first in ('-h', '--help', 'help'):
    width = max(map(len, commands))
    lines = [f'  {word:<{width}}  {about}' for word, (about, _) in commands.items()]
    print('\n'.join([f'usage: {command} COMMAND [flags]', '', description, '', *lines, '']))
    print(f'`{command} COMMAND --help` lists the flags of a command.')
    return 0
  near = difflib.get_close_matches(first, commands, n=1)
  meant = f'; is {near[0]} meant?' if near else ''
  wrong = f'there is no command {first!r}{meant}' if first else 'give a command'
  say(command, f'{wrong} (commands: {", ".join(commands)})')
  return WRONG_USAGE


def _is_field(word: str) -> bool:
  return re.match(r'--?(no)?config\.', word) is not None


def say(command: str, error: object) -> None:
  """`jaxinpaint train: what is wrong`, on stderr."""
  if isinstance(error, OSError):
    error = sentence(error)
  print(f'{command}: {error}', file=sys.stderr)


def path(text: str) -> str:
  """A path, or what holds one ('folder:~/photos', 'name=~/run'), with `~` as a shell expands it."""
  home = lambda match: match[1] + os.path.expanduser(match[2])
  return re.sub(r'(^|[:=])(~[^/:=]*)', home, text)


def words(text: str) -> list[str]:
  """'10-20,20-40' -> ['10-20', '20-40']; '' has none."""
  return [word.strip() for word in text.split(',')] if text else []


SEEDS = -(2**63), 2**63 - 1  # what jax takes


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
  """The type of a flag that takes a whole number from `least` to `most`."""

  def number(text: str) -> int:
    if not re.fullmatch(r'[+-]?\d+', text.strip()):
      raise argparse.ArgumentTypeError(f'{text!r} must be a whole number')
    if least is not None and int(text) < least:
      raise argparse.ArgumentTypeError(f'{text} must be at least {least}')
    if most is not None and int(text) > most:
      raise argparse.ArgumentTypeError(f'{text} must be at most {most}')
    return int(text)

  return number


def span(text: str) -> tuple[int, int]:
  """'100:110' -> (100, 110), for steps."""
  start, colon, stop = text.partition(':')
  if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
    raise argparse.ArgumentTypeError(
      f'{text!r} must be START:STOP, two numbers of steps with START below STOP, as in 100:110'
    )
  return int(start), int(stop)


def add_processes(parser: Parser) -> None:
  """--coordinator, --num_processes and --process_id, of a command that several machines share."""
  parser.add_argument('--coordinator', metavar='HOST:PORT', help='of process 0, of several.')
  parser.add_argument('--num_processes', type=whole(1), metavar='N', help='how many there are.')
  parser.add_argument('--process_id', type=whole(0), metavar='I', help='which this is, from 0.')


def add_megapixels(parser: Parser) -> None:
  """--max_megapixels, of a command that reads pictures; the environment holds its value."""
  parser.add_argument(
    '--max_megapixels',
    type=whole(1),
    action=_Environment,
    default=argparse.SUPPRESS,
    metavar='N',
    help='larger pictures are refused by name (default 200); memory grows with the pixels.',
  )


class _Environment(argparse.Action):
  def __call__(self, parser, namespace, values, option_string=None):
    os.environ['JAXINPAINT_' + self.dest.upper()] = str(values)


def setup_logging(quiet: bool = False) -> None:
  """Shows on the terminal what this library logs, and of others only what is serious.

  Orbax logs thirty lines for each checkpoint, and warns of metadata that it would like beside each
  item; this library itself reports a checkpoint that cannot be read.

  Args:
    quiet: this library's warnings only.
  """
  from absl import flags, logging

  # absl's log and Grain's workers read absl's flags: all at their defaults, for they are not ours.
  flags.FLAGS.mark_as_parsed()
  logging.set_verbosity(logging.WARNING if quiet else logging.INFO)
  logging.use_absl_handler()
  root = str(pathlib.Path(__file__).parents[1])

  def shown(record: standard_logging.LogRecord) -> bool:
    least = standard_logging.ERROR if 'orbax' in record.pathname else standard_logging.WARNING
    return record.pathname.startswith(root) or record.levelno >= least

  logging.get_absl_handler().addFilter(shown)


def sentence(error: BaseException) -> str:
  """The message in one line; of a traceback that ml_collections puts into it, what was raised."""
  if isinstance(error, OSError) and error.strerror:  # of the system, not a sentence of ours
    return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
  text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
  lines = text.replace("\\'", "'").replace('\\n', '\n').strip().splitlines()
  if any(line.startswith('Traceback') for line in lines):
    lines = [lines[0], lines[-1]]
  return ' '.join(line.strip() for line in lines if line.strip())
