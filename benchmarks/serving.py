"""Load on `jaxinpaint serve`: throughput, waiting times, memory.

  python -m benchmarks.serving                     # docs/serving.md has the result
  python -m benchmarks.serving --clients 50 --requests 1000 --sizes 256,512

Starts a server of the default weights, and asks it for one picture after the other from each of the
clients. Beside it stand a plain loop of the server's own work on one picture (decode, complete,
encode) and the completion alone, in this process, measured before: nothing else may run meanwhile.
"""

import argparse
import contextlib
import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image
from skimage import data

from jaxinpaint.inference import inpainter, repair

_LOOP_SECONDS = 10.0  # for each figure


def pictures(size: int) -> tuple[bytes, bytes]:
  """A photograph and its mask as files."""
  photo = Image.fromarray(data.astronaut()).resize((size, size), Image.Resampling.LANCZOS)
  hole = np.zeros((size, size), np.uint8)
  hole[size // 3 : size // 2, size // 4 : 3 * size // 4] = 255
  files = []
  for image, format in ((photo, 'JPEG'), (Image.fromarray(hole), 'PNG')):
    out = io.BytesIO()
    image.save(out, format, quality=95)
    files.append(out.getvalue())
  return files[0], files[1]


def loop(size: int) -> dict[str, float]:
  """Pictures per second without a server: of all the work, and of the completion alone."""
  image, mask = pictures(size)
  painter = inpainter.load()
  task = repair.read(image, mask, format='PNG')
  task.complete(painter)

  def rate(work) -> float:
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < _LOOP_SECONDS:
      work()
      count += 1
    return count / (time.perf_counter() - begun)

  def whole() -> None:
    own = repair.read(image, mask, format='PNG')
    own.encode(own.complete(painter))

  return {'whole': rate(whole), 'completion': rate(lambda: task.complete(painter))}


@contextlib.contextmanager
def server(clients: int):
  """The port of a server in a process of its own."""
  command = [sys.executable, '-m', 'jaxinpaint', 'serve', '--port=0', f'--queue={clients}']
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      yield int(re.search(r':(\d+)/', process.stdout.readline())[1])
    finally:
      process.terminate()


def form(size: int) -> tuple[bytes, dict[str, str]]:
  """The body and headers of a request."""
  parts = []
  for name, content in zip(('image', 'mask'), pictures(size), strict=True):
    disposition = f'form-data; name="{name}"; filename="{name}"'
    parts += [f'--part\r\nContent-Disposition: {disposition}\r\n\r\n'.encode(), content, b'\r\n']
  body = b''.join([*parts, b'--part--\r\n'])
  return body, {'Content-Type': 'multipart/form-data; boundary=part', 'Accept': 'image/png'}


def ask(port: int, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=600)
  connection.request('POST', '/api/v1/inpaint', body, headers)
  answer = connection.getresponse()
  content = answer.read()
  connection.close()
  return answer.status, content


def resident(port: int) -> float:
  """MB of the server's process."""
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  connection.request('GET', '/metrics')
  text = connection.getresponse().read().decode()
  connection.close()
  return float(re.search(r'^process_resident_memory_bytes (\S+)', text, re.M)[1]) / 1e6


def load(port: int, size: int, clients: int, requests: int) -> dict:
  """`requests` answers to `clients` that each wait for one before asking for the next."""
  body, headers = form(size)
  assert ask(port, body, headers)[0] == 200  # compiles
  seconds, memory, wrong = [], {}, []
  lock, left = threading.Lock(), [requests]

  def client() -> None:
    while True:
      with lock:
        if not left[0]:
          return
        left[0] -= 1
      begun = time.perf_counter()
      status, _ = ask(port, body, headers)
      with lock:
        seconds.append(time.perf_counter() - begun)
        if status != 200:
          wrong.append(status)
        if len(seconds) in (100, requests):
          memory[len(seconds)] = resident(port)

  begun = time.perf_counter()
  threads = [threading.Thread(target=client) for _ in range(clients)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  total = time.perf_counter() - begun
  p50, p95 = np.percentile(seconds, [50, 95])
  return {
    'size': size,
    'clients': clients,
    'requests': requests,
    'refused': len(wrong),
    'per_second': requests / total,
    'p50': p50,
    'p95': p95,
    'memory_mb': memory,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--clients', type=int, default=50)
  parser.add_argument('--requests', type=int, default=1000)
  parser.add_argument('--sizes', default='256,512')
  given = parser.parse_args()
  for size in map(int, given.sizes.split(',')):
    alone = loop(size)
    with server(given.clients) as port:
      found = load(port, size, given.clients, given.requests)
    print(json.dumps(found | {f'alone_{name}': rate for name, rate in alone.items()}), flush=True)


if __name__ == '__main__':
  main()
