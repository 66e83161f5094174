"""A server on this machine that gives files, as badly as a test wants."""

import contextlib
import http.server
import threading
import time


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    server = self.server
    asked = self.headers.get('Range')
    server.asked.append(asked)
    time.sleep(server.delay)
    if self.path in server.redirects:
      self.send_response(302)
      self.send_header('Location', server.redirects[self.path])
      self.end_headers()
      return
    content = server.files.get(self.path)
    if server.status or content is None:
      self.send_error(server.status or 404)
      return
    start = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and server.ranges else 0
    if start and start >= len(content):
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    self.send_header('Content-Length', str(len(content) - start))
    self.end_headers()
    stop = server.stops.pop(0) if server.stops else len(content)
    with contextlib.suppress(ConnectionError):  # the client has waited too long, and is gone
      self.wfile.write(content[start:stop])

  def log_message(self, *_):
    pass


class Server(http.server.ThreadingHTTPServer):
  """Serves until the `with` block ends.

  Attributes:
    files: {'/path': content}.
    redirects: {'/path': where it is instead}.
    asked: the Range of each request that came, None where it had none.
    stops: where the transfers to come break off, in order.
    ranges: whether it can send the end of a file alone.
    delay: seconds before each answer.
    status: of each answer; 0: as it should be.
  """

  daemon_threads = True

  def __init__(self, files):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.files, self.redirects, self.asked, self.stops = files, {}, [], []
    self.ranges, self.delay, self.status = True, 0.0, 0
    self.address = f'http://127.0.0.1:{self.server_port}'
    threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

  def __exit__(self, *error):
    self.shutdown()
    super().__exit__(*error)
