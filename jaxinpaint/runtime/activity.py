"""What a command is doing while a user waits: a line on the terminal from the second second on.

  with activity.shown('Compiling the train step'):
    program = lowered.compile()

Imports the standard library only: the first thing a user waits for is the import of jax.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

_AFTER = 1.0  # seconds; what is done sooner needs no line
_CLEAR = '\r\033[K'  # to the start of the line, and erases it


@contextlib.contextmanager
def shown(what: str) -> Iterator[None]:
  """Around work that may take seconds: 'WHAT ... 12 s' on stderr, erased at the end.

  Nothing is written where stderr is no terminal. Do not nest.

  Args:
    what: as 'Reading the checkpoint'.
  """
  if not sys.stderr.isatty():
    yield
    return
  done, begun = threading.Event(), time.monotonic()

  def tell() -> None:
    while not done.wait(_AFTER):
      # The cursor goes back to the start, so that a message of the log covers the line.
      line = f'{what} ... {time.monotonic() - begun:.0f} s'
      print(_CLEAR + line, end='\r', file=sys.stderr, flush=True)

  teller = threading.Thread(target=tell, daemon=True)
  teller.start()
  try:
    yield
  finally:
    done.set()
    teller.join()
    print(_CLEAR, end='', file=sys.stderr, flush=True)
