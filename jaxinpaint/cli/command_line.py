"""What the entry points share: flags whose mistakes end in a sentence, and a readable log."""

import logging as standard_logging
import pathlib
import sys

from absl import flags, logging


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parser, for `app.run(main, flags_parser=parse_flags)`.

  A config file or field that does not exist, at which ml_collections raises from deep inside, ends
  in one sentence and exit code 2.
  """
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.stderr.write(f'{argv[0]}: {sentence(error)} (--help lists the flags)\n')
    sys.exit(2)


def sentence(error: Exception) -> str:
  """The message in one line; of a traceback that ml_collections puts into it, what was raised."""
  lines = str(error).replace("\\'", "'").replace('\\n', '\n').strip().splitlines()
  if any(line.startswith('Traceback') for line in lines):
    lines = [lines[0], lines[-1]]
  return ' '.join(line.strip() for line in lines if line.strip())


def span(text: str | None) -> tuple[int, int] | None:
  """'100:110' -> (100, 110); None stays None.

  Raises:
    ValueError: not two step numbers with the first below the second.
  """
  if text is None:
    return None
  start, colon, stop = text.partition(':')
  if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
    raise ValueError(
      f'{text!r} must be START:STOP, two numbers of steps with START below STOP, as in 100:110'
    )
  return int(start), int(stop)


def check_span(text: str | None) -> bool:
  """`span` as a validator of absl's flags."""
  try:
    span(text)
  except ValueError as error:
    raise flags.ValidationError(str(error)) from error
  return True


def setup_logging(verbosity: int = logging.INFO) -> None:
  """absl's log on the terminal: this library's messages, and of the others what is serious.

  Orbax writes thirty lines of information for each checkpoint, and warns of metadata that it would
  like beside each item; a checkpoint that cannot be read is reported by this library.

  Args:
    verbosity: of this library's messages, as absl counts it.
  """
  logging.set_verbosity(verbosity)
  logging.use_absl_handler()
  root = str(pathlib.Path(__file__).parents[1])

  def shown(record: standard_logging.LogRecord) -> bool:
    least = standard_logging.ERROR if 'orbax' in record.pathname else standard_logging.WARNING
    return record.pathname.startswith(root) or record.levelno >= least

  logging.get_absl_handler().addFilter(shown)
