"""What the entry points share: flags whose mistakes end in a sentence."""

import sys

from absl import flags


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parser, for `app.run(main, flags_parser=parse_flags)`.

  A config file or field that does not exist, at which ml_collections raises from deep inside, ends
  in one sentence and exit code 2.
  """
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.stderr.write(f'{argv[0]}: {_sentence(error)} (--help lists the flags)\n')
    sys.exit(2)


def _sentence(error: Exception) -> str:
  """The message in one line; of a traceback that ml_collections puts into it, what was raised."""
  lines = str(error).replace("\\'", "'").replace('\\n', '\n').strip().splitlines()
  if any(line.startswith('Traceback') for line in lines):
    lines = [lines[0], lines[-1]]
  return ' '.join(line.strip() for line in lines if line.strip())
