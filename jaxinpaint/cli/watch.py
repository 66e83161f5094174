"""A page that shows training runs while they go on: losses, speed, held-out metrics, pictures.

  jaxinpaint watch runs/mesff
  jaxinpaint watch runs                          # all runs in the folder, also later ones
  jaxinpaint watch runs/mesff runs/lama --port 8200
  jaxinpaint watch runs/mesff --save mesff.html  # one file, which needs no server and no network

The page needs `pip install 'jaxinpaint[serve]'`, --save does not. The runs are only read, so the
folder can be on a mounted disk of another machine. Only this machine can reach the server, unless
--host says otherwise; then a token is needed, which is made up and printed if none is given
(--token, or the variable JAXINPAINT_TOKEN). See docs/monitoring.md.

Exit codes, with a sentence: 0; 1 where the server cannot listen or the file cannot be written; 2
where a flag is wrong.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence

from jaxinpaint.cli import command_line, listening

COMMAND = 'jaxinpaint watch'
_PORT = 8100
NEEDED = ('starlette', 'uvicorn')
_PATIENCE = 2.0  # seconds for answers that are under way when the server ends


def _parser() -> command_line.Parser:
  parser = command_line.Parser(COMMAND, __doc__, 'WORKDIR ... [flags]')
  add = parser.add_argument
  add(
    'workdirs',
    nargs='+',
    type=command_line.path,
    metavar='WORKDIR',
    help='of a run, which may begin later; or a folder that holds such.',
  )
  add(
    '--save',
    type=command_line.path,
    metavar='FILE.html',
    help='write the page with all numbers and pictures of now into one file, and end.',
  )
  add(
    '--picture_megabytes',
    type=command_line.whole(0),
    default=16,
    metavar='N',
    help='of pictures in that file (default 16); the page says what was left out.',
  )
  listening.add_flags(parser, _PORT)
  parser.switch('open', help='open the page in the browser of this machine.')
  parser.switch('with_parent', help=argparse.SUPPRESS)  # ends when its stdin does: see `beside`
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  for workdir in given.workdirs:
    if os.path.exists(workdir) and not os.path.isdir(workdir):
      parser.error(f'{workdir} is a file: give the --workdir of a run, or a folder of runs')
  if given.save is not None:
    return _save(given, parser)
  if missing := listening.missing(NEEDED):
    parser.error(f'{missing}, or write a file instead, with --save')
  return _serve(given)


def _save(given: argparse.Namespace, parser: command_line.Parser) -> int:
  from jaxinpaint.runtime import atomic
  from jaxinpaint.watching import document
  from jaxinpaint.watching.runs import Runs

  file = pathlib.Path(given.save)
  if file.is_dir() or not file.parent.is_dir():
    wrong = 'is a folder' if file.is_dir() else 'is in a folder that does not exist'
    parser.error(f'--save {file} {wrong}: give the name of a file to write')
  try:
    text = document.save(Runs(given.workdirs), given.picture_megabytes << 20)
  except ValueError as error:
    parser.error(str(error))
  try:
    atomic.write(file, text)
  except OSError as error:
    command_line.say(COMMAND, f'--save {file} cannot be written: {error.strerror or error}')
    return 1
  print(f'{file}: {file.stat().st_size / 1e6:.1f} MB')
  return 0


def _serve(given: argparse.Namespace) -> int:
  from jaxinpaint.watching import app
  from jaxinpaint.watching.run import is_run
  from jaxinpaint.watching.runs import Runs
  from jaxinpaint.web import http

  command_line.setup_logging(quiet=True)
  try:
    door = listening.listen(given)
  except OSError as error:
    command_line.say(COMMAND, error)
    return 1
  runs = Runs(given.workdirs)
  for run in runs.find().values():
    if not is_run(run.folder) and not given.with_parent:
      command_line.say(COMMAND, f'no run has begun in {run.folder} yet: the page waits for it')

  def started() -> None:
    print(door.address, flush=True)
    if given.open:
      webbrowser.open(door.address)

  application = app.create(runs, token=door.token, hosts=door.hosts)
  server = http.make(application, started, _PATIENCE)
  if given.with_parent:

    def wait() -> None:
      sys.stdin.read()
      server.should_exit = True

    threading.Thread(target=wait, daemon=True).start()
  with contextlib.suppress(KeyboardInterrupt):  # raised anew when all is ended
    server.run([door.socket])
  return 0


@contextlib.contextmanager
def beside(workdir: str | os.PathLike, port: int, tell: Callable[[str], object]) -> Iterator[None]:
  """Shows a run while the block goes on, by a process of its own, which ends with this one.

  Whatever happens to that process, the block does not notice; its stderr is this one's.

  Args:
    workdir: of the run.
    port: to listen on; 0: any that is free.
    tell: is called with the page's address, in a thread.
  """
  words = ['-m', 'jaxinpaint', 'watch', f'--port={port}', '--with_parent', '--', str(workdir)]
  process = subprocess.Popen(
    [sys.executable, *words],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,  # Ctrl-C is for the run, which takes its time to save
  )

  def listen() -> None:
    if address := process.stdout.readline().strip():
      tell(address)

  threading.Thread(target=listen, daemon=True).start()
  try:
    yield
  finally:
    process.stdin.close()  # it ends by itself, as it does when this process is killed
