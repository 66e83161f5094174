"""Around every request: who may ask, and what an answer says to browsers.

No CORS headers are sent, so that a browser shows no page of another site an answer. A request that
such a page sends all the same is refused by its Origin; one that reaches the server under a foreign
name (DNS rebinding), by its Host.
"""

import asyncio
import hmac
import ipaddress
import urllib.parse
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxinpaint.web.problems import Problem

LOOPBACK = ('localhost', '127.0.0.1', '::1')
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
}
_DRAIN_SECONDS = 5.0


class Guard:
  """ASGI middleware; see the module.

  Args:
    app: to which good requests go.
    most_bytes: of a body that the server reads.
    answered: is called with the route and the status of each answer.
    token: that requests of the API have to bring; '': none.
    hosts: names under which the server may be asked; addresses of numbers are always good where
      there is a token.
    guarded: the beginnings of paths that need the token.
    free: paths that need none all the same.
  """

  def __init__(
    self,
    app: ASGIApp,
    most_bytes: int = 0,
    answered: Callable[[str, int], object] = lambda route, status: None,
    token: str = '',
    hosts: Collection[str] = LOOPBACK,
    guarded: tuple[str, ...] = ('/api/', '/metrics'),
    free: tuple[str, ...] = ('/api/v1/health',),
  ):
    self._app, self._most_bytes, self._answered = app, most_bytes, answered
    self._token, self._hosts = token, frozenset(h.lower() for h in hosts)
    self._guarded, self._free = guarded, free

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI's."""
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    exchange = _Exchange(scope, receive, send, self._most_bytes, self._answered)
    try:
      self._check(scope)
    except Problem as problem:
      await problem.response()(scope, exchange.receive, exchange.send)
      return
    await self._app(scope, exchange.receive, exchange.send)

  def _check(self, scope: Scope) -> None:
    headers = Headers(scope=scope)
    host = headers.get('host', '')
    name = _host_name(host)
    if name not in self._hosts and not (self._token and _is_address(name)):
      raise Problem('wrong-host', 'start the server with --allow_host NAME to use it by this name')
    origin = headers.get('origin')
    foreign = headers.get('sec-fetch-site') == 'cross-site' and scope['method'] != 'GET'
    if foreign or (origin is not None and urllib.parse.urlsplit(origin).netloc != host):
      raise Problem('forbidden-origin', 'this API is not for pages of other sites')
    path = scope['path']
    if self._token and path.startswith(self._guarded) and path not in self._free:
      kind, _, given = headers.get('authorization', '').partition(' ')
      # In constant time, and of bytes: compare_digest refuses text that is not ASCII.
      good = hmac.compare_digest(given.strip().encode(), self._token.encode())
      if kind.lower() != 'bearer' or not good:
        detail = 'send the header "Authorization: Bearer TOKEN" with the token of the server'
        raise Problem('unauthorised', detail, {'WWW-Authenticate': 'Bearer'})


class _Exchange:
  """One request and its answer."""

  def __init__(
    self,
    scope: Scope,
    receive: Receive,
    send: Send,
    most_bytes: int,
    answered: Callable[[str, int], object],
  ):
    self._scope, self._receive, self._send = scope, receive, send
    self._most_bytes, self._answered = most_bytes, answered
    self._received, self._touched, self._read = False, False, 0

  async def receive(self) -> Message:
    self._touched = True
    message = await self._receive()
    self._read += len(message.get('body', b''))
    if message['type'] == 'http.disconnect' or not message.get('more_body', False):
      self._received = True
    return message

  async def send(self, message: Message) -> None:
    if message['type'] == 'http.response.start':
      headers = MutableHeaders(scope=message)
      for name, value in _HEADERS.items():
        headers.setdefault(name, value)
      if message['status'] >= 400 and message['status'] != 408:  # that one was waited for
        await self._drain()
      route = self._scope.get('jaxinpaint.route', 'other')
      self._answered(route, message['status'])
    await self._send(message)

  async def _drain(self) -> None:
    """Reads what is left of a body that is refused, and drops it.

    A client that is still sending would not see the answer: closing the connection resets it. Not
    if the client waits for a go-ahead, or has announced more than is ever read.
    """
    headers = Headers(scope=self._scope)
    declared = headers.get('content-length', '0')
    waits = 'expect' in headers and not self._touched
    if waits or not declared.isdecimal() or int(declared) > self._most_bytes:
      return
    if not (int(declared) or 'transfer-encoding' in headers):
      return
    try:
      async with asyncio.timeout(_DRAIN_SECONDS):
        while not self._received and self._read <= self._most_bytes:
          await self.receive()
    except TimeoutError:
      return


def _host_name(host: str) -> str:
  """'[::1]:8000' -> '::1'; '' for what is no host."""
  try:
    return (urllib.parse.urlsplit(f'//{host}').hostname or '').rstrip('.')
  except ValueError:
    return ''


def _is_address(name: str) -> bool:
  try:
    ipaddress.ip_address(name)
  except ValueError:
    return False
  return True
