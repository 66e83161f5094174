"""The HTTP server: uvicorn, whose clients have to send their headers in time.

uvicorn waits for the first request of a connection for ever.
"""

import asyncio
import resource
from collections.abc import Callable

import uvicorn
from absl import logging
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0
_CONNECTIONS = 4096
_KEEP_ALIVE_SECONDS = 15
_HEADER_BYTES = 32 << 10


class Protocol(H11Protocol):
  """One connection, which is closed when headers do not arrive, or too many are open."""

  _late: asyncio.TimerHandle | None = None

  def connection_made(self, transport):
    """asyncio's."""
    super().connection_made(transport)
    if len(self.connections) > _CONNECTIONS:
      transport.abort()
    self._expect_headers()

  def connection_lost(self, exc):
    """asyncio's."""
    self._expect_none()
    super().connection_lost(exc)

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
      self._late = self.loop.call_later(HEADER_SECONDS, self._close_if_idle)

  def _expect_none(self) -> None:
    if self._late is not None:
      self._late.cancel()
      self._late = None

  def _close_if_idle(self) -> None:
    self._late = None
    if not self._busy:
      self.transport.close()


class _Server(uvicorn.Server):
  def __init__(self, config: uvicorn.Config, started: Callable[[int], object]):
    super().__init__(config)
    self._tell = started

  async def startup(self, sockets=None) -> None:
    await super().startup(sockets)
    if self.started:
      self._tell(self.servers[0].sockets[0].getsockname()[1])


def serve(
  app: Starlette, host: str, port: int, started: Callable[[int], object], patience: int
) -> bool:
  """Serves until SIGINT or SIGTERM; whether it could begin.

  Args:
    app: of `app.create`.
    host: an address to listen on.
    port: 0: any that is free.
    started: is called with the port when requests are taken.
    patience: seconds that requests may take to be answered once the server is told to end.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = _CONNECTIONS + 256
  if soft < wanted:  # else a thousand connections would be all that this process can open
    least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, least), hard))
  config = uvicorn.Config(
    app,
    host=host,
    port=port,
    http=Protocol,
    ws='none',
    lifespan='on',
    access_log=False,  # what people repair is not written down
    log_level='warning',
    server_header=False,
    proxy_headers=False,
    timeout_graceful_shutdown=patience,
    timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    h11_max_incomplete_event_size=_HEADER_BYTES,
  )
  server = _Server(config, started)
  server.run()
  if not server.started:
    logging.error('the server could not begin to listen on %s port %d', host, port)
  return server.started
