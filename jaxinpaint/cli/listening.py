"""What the commands with a page share: where they listen, and whom they let in."""

import argparse
import dataclasses
import importlib.util
import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence

from jaxinpaint.cli import command_line

TOKEN = 'JAXINPAINT_TOKEN'


@dataclasses.dataclass(frozen=True)
class Door:
  """Where a server listens.

  Attributes:
    socket: that listens.
    token: that requests have to bring; '': none.
    hosts: names under which the server may be asked.
    address: for a person's browser.
  """

  socket: socket.socket
  token: str
  hosts: frozenset[str]
  address: str


def add_flags(parser: command_line.Parser, port: int) -> None:
  """--host, --port, --token and --allow_host.

  Args:
    parser: of the command.
    port: the default.
  """
  add, whole = parser.add_argument, command_line.whole
  add('--host', default='127.0.0.1', metavar='ADDRESS', help='to listen on (default 127.0.0.1).')
  about = f'default {port}; 0: any free.'
  add('--port', type=whole(0, 65535), default=port, metavar='N', help=about)
  add('--token', default='', help='that requests have to bring.')
  add(
    '--allow_host',
    action='append',
    default=[],
    metavar='NAME',
    help='a name by which browsers reach the server, besides its address; several times.',
  )


def missing(modules: Sequence[str]) -> str:
  """What to install where a server's modules are not all there; ''."""
  absent = [name for name in modules if importlib.util.find_spec(name) is None]
  return f"{', '.join(absent)} is not installed: pip install 'jaxinpaint[serve]'" if absent else ''


def listen(given: argparse.Namespace) -> Door:
  """Listens where the flags say; where others can reach it, with a token in any case.

  Raises:
    OSError: the address is taken, or is none of this machine; the message is a sentence.
  """
  from jaxinpaint.web import http

  token = given.token or os.environ.get(TOKEN, '')
  if not _is_loopback(given.host) and not token:
    token = secrets.token_urlsafe(24)
  try:
    listening = http.listen(given.host, given.port)
  except OSError as error:
    why = f'{given.host} port {given.port}: {os.strerror(error.errno) if error.errno else error}'
    raise OSError(f'cannot listen on {why}; give another --port or --host') from error
  port = listening.getsockname()[1]
  host = {'0.0.0.0': '127.0.0.1', '::': '[::1]'}.get(given.host, given.host)
  host = f'[{host}]' if ':' in host and not host.startswith('[') else host
  hosts = {'localhost', '127.0.0.1', '::1', given.host, socket.gethostname(), *given.allow_host}
  # What follows # is not sent to any server; the page reads it and takes it away.
  address = f'http://{host}:{port}/' + (f'#token={token}' if token else '')
  return Door(listening, token, frozenset(hosts), address)


def _is_loopback(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'
