"""What the entry points share: flags whose mistakes end in a sentence."""

import sys

from absl import app, flags


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parser, for `app.run(main, flags_parser=parse_flags)`.

  A config file or field that does not exist, at which ml_collections raises from deep inside, ends
  in one sentence and exit code 2.
  """
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    app.usage(shorthelp=True, detailed_error=error, exitcode=2)
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # ml_collections puts whole tracebacks into its messages; their last line says what is wrong.
    sys.stderr.write(f'{argv[0]}: --config: {str(error).strip().splitlines()[-1].strip()}\n')
    sys.exit(2)
