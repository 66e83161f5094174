"""The HTTP server: uvicorn, whose clients have to send headers, and to take answers, in time.

uvicorn itself waits for both for ever.
"""

import asyncio
import resource
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTIONS = 4096
_KEEP_ALIVE_SECONDS = 15
_HEADER_BYTES = 32 << 10


class Protocol(H11Protocol):
  """One connection, which is closed when headers do not arrive, or too many are open."""

  header_seconds = 15.0
  send_seconds = 30.0  # in which a client has to take 48 KiB of an answer, asyncio's buffer
  _late: asyncio.TimerHandle | None = None
  _stalled: asyncio.TimerHandle | None = None

  def connection_made(self, transport):
    """asyncio's."""
    super().connection_made(transport)
    if len(self.connections) > _CONNECTIONS:
      transport.abort()
    self._expect_headers()

  def connection_lost(self, exc):
    """asyncio's."""
    self._expect_none()
    self._stop_waiting()
    super().connection_lost(exc)

  def pause_writing(self):
    """asyncio's: the client does not read."""
    super().pause_writing()
    self._stalled = self.loop.call_later(self.send_seconds, self.transport.abort)

  def resume_writing(self):
    """asyncio's: it does."""
    super().resume_writing()
    self._stop_waiting()

  def _stop_waiting(self) -> None:
    if self._stalled is not None:
      self._stalled.cancel()
      self._stalled = None

  def data_received(self, data):
    """asyncio's."""
    self._expect_headers()
    super().data_received(data)
    if self._busy:
      self._expect_none()

  @property
  def _busy(self) -> bool:
    return self.cycle is not None and not self.cycle.response_complete

  def _expect_headers(self) -> None:
    if self._late is None and not self._busy:
      self._late = self.loop.call_later(self.header_seconds, self._close_if_idle)

  def _expect_none(self) -> None:
    if self._late is not None:
      self._late.cancel()
      self._late = None

  def _close_if_idle(self) -> None:
    self._late = None
    if not self._busy:
      self.transport.close()


class _Server(uvicorn.Server):
  def __init__(self, config: uvicorn.Config, started: Callable[[], object]):
    super().__init__(config)
    self._tell = started

  async def startup(self, sockets=None) -> None:
    await super().startup(sockets)
    if self.started:
      self._tell()


def listen(host: str, port: int) -> socket.socket:
  """A socket at this address; port 0 is any that is free.

  Raises:
    OSError: the address is taken, or is none of this machine.
  """
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)


def make(app: Starlette, started: Callable[[], object], patience: float) -> uvicorn.Server:
  """A server; `run([socket])` serves until SIGINT or SIGTERM, or until `should_exit` is set.

  Args:
    app: of `app.create`.
    started: is called when requests are answered.
    patience: seconds that requests may take to be answered once the server is told to end.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = _CONNECTIONS + 256
  if soft < wanted:  # else a thousand connections would be all that this process can open
    least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, least), hard))
  config = uvicorn.Config(
    app,
    backlog=_CONNECTIONS,
    http=Protocol,
    ws='none',
    lifespan='on',
    access_log=False,  # what people repair is not written down
    log_level='error',
    server_header=False,
    proxy_headers=False,
    timeout_graceful_shutdown=round(patience),
    timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    h11_max_incomplete_event_size=_HEADER_BYTES,
  )
  return _Server(config, started)
