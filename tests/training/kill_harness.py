"""Kills a real training process again and again, at seeded moments, until it is done."""

import dataclasses
import functools
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent.parent

# Small enough that a life takes seconds; averages, statistics and masks are part of the state.
FLAGS = (
  '--config.init_from=',
  '--config.model.width=4',
  '--config.model.stem=1',
  '--config.training.patience=0',
  '--config.data.size=40',
  '--config.data.batch_size=2',
  '--config.training.log_every=1',
  '--config.training.ema_decay=0.9',
  '--config.training.evaluate_every=0',
  '--config.training.sample_every=0',
  '--config.training.mesh.data=1',
  '--config.evaluation.at_end=False',
  '--config.checkpoint.every=3',
  '--config.checkpoint.keep=2',
  '--config.checkpoint.best=',
)


@dataclasses.dataclass
class Kills:
  """Where they fell.

  Attributes:
    saving: while a checkpoint's temporary folder was there.
    stepping: after a step of that life, between saves.
    starting: before the first step of that life.
  """

  saving: int = 0
  stepping: int = 0
  starting: int = 0

  @property
  def total(self) -> int:
    return self.saving + self.stepping + self.starting


def command(workdir, steps, *flags):
  return [
    sys.executable, str(ROOT / 'train.py'), '--config', str(ROOT / 'configs/quickstart.py'),
    '--workdir', str(workdir), f'--config.training.steps={steps}', *FLAGS, *flags,
  ]  # fmt: skip


def start_processes(workdir, steps, count, *flags):
  """`count` processes of one run, with a log each: WORKDIR.INDEX.log."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  flags = (
    '--config.training.mesh.data=-1', f'--coordinator={address}', f'--num_processes={count}', *flags
  )  # fmt: skip
  env = os.environ | {'XLA_FLAGS': ''}
  return [
    subprocess.Popen(
      command(workdir, steps, *flags, f'--process_id={index}'),
      stdout=open(f'{workdir}.{index}.log', 'a'), stderr=subprocess.STDOUT, env=env, cwd=ROOT,
    )
    for index in range(count)
  ]  # fmt: skip


def start(workdir, steps, *flags, log=None, **env):
  """The process; JAX's cache of compiled functions makes all lives after the first short."""
  log = open(log or pathlib.Path(workdir).with_suffix('.log'), 'a')
  workdir = pathlib.Path(workdir)
  env = os.environ | {'XLA_FLAGS': '', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1'} | env
  return subprocess.Popen(
    command(workdir, steps, *flags), stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT
  )


def last_line(workdir):
  """(step, time in seconds) of the last line of metrics.jsonl; a torn line counts for nothing."""
  path, last = pathlib.Path(workdir) / 'metrics.jsonl', (0, 0.0)
  if path.exists():
    for line in path.read_bytes().splitlines():
      try:
        found = json.loads(line)
        last = found['step'], found['time']
      except ValueError:
        pass
  return last


def last_step(workdir):
  return last_line(workdir)[0]


def _wrote(workdir, since):
  """Whether a step was logged since then."""
  return last_line(workdir)[1] > since


def saving(workdir, since=0.0):
  """Whether a checkpoint is being written; what an earlier life left does not count."""
  found = (pathlib.Path(workdir) / 'checkpoints').glob('*.orbax-checkpoint-tmp*')
  return any(_born(path) > since for path in found)


def _idle(workdir, since):
  return not saving(workdir, since)


def _born(path):
  try:
    return path.stat().st_ctime
  except FileNotFoundError:  # renamed meanwhile
    return 0.0


def wait_for(process, condition, seconds=300.0):
  """Whether the condition came true while the process lived."""
  deadline = time.monotonic() + seconds
  while time.monotonic() < deadline:
    if condition():
      return True
    if process.poll() is not None:
      return False
    time.sleep(0.002)
  raise TimeoutError('the run neither went on nor ended')


def kill_until_done(workdir, steps, kills, seed=0, *flags):
  """Kills the run so many times, then lets it finish; returns Kills and the last exit code.

  An eighth of the lives is killed before the first step, three eighths while a checkpoint is
  written, half some steps after they begin and between saves; in random order.
  """
  rng, count = random.Random(seed), Kills()
  kinds = ['starting'] * (kills // 8) + ['saving'] * (3 * kills // 8)
  kinds += ['stepping'] * (kills - len(kinds))
  rng.shuffle(kinds)
  for kind in kinds:
    born = time.time()
    process = start(workdir, steps, *flags)
    wrote = functools.partial(_wrote, workdir, born)
    busy = functools.partial(saving, workdir, born)
    idle = functools.partial(_idle, workdir, born)
    if kind == 'starting':
      time.sleep(rng.uniform(0.5, 6.0))
    elif wait_for(process, wrote):
      if kind == 'saving':
        # Some saves are let through, so that the whole thing gets on.
        for _ in range(rng.randint(0, 2)):
          wait_for(process, busy)
          wait_for(process, idle)
        wait_for(process, busy)
        time.sleep(rng.uniform(0.0, 0.15))
      else:
        goal = last_step(workdir) + rng.randint(1, 6)
        wait_for(process, lambda goal=goal: last_step(workdir) >= goal)
        time.sleep(rng.uniform(0.0, 0.1))
        wait_for(process, idle)
    if process.poll() is not None:
      raise AssertionError(
        f'the run ended by itself with code {process.returncode} after {count}: more steps?'
      )
    process.send_signal(signal.SIGKILL)
    process.wait()
    if busy():
      count.saving += 1
    elif wrote():
      count.stepping += 1
    else:
      count.starting += 1
  process = start(workdir, steps, *flags)
  return count, process.wait()
