"""Versions, commit and hardware of this process, for reports and runs."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import jaxinpaint


def environment() -> dict[str, Any]:
  """Versions and hardware of this process."""
  devices = jax.devices()
  version = importlib.metadata.version
  return {
    'jaxinpaint': jaxinpaint.__version__,
    'commit': commit(),
    'python': platform.python_version(),
    'jax': jax.__version__,
    'flax': version('flax'),
    'numpy': version('numpy'),
    'opencv': version('opencv-python-headless'),
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'machine': f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores',
  }


def commit() -> str | None:
  """The commit of this library's checkout ('-dirty' with changes); None where it is not in git."""
  root = pathlib.Path(jaxinpaint.__file__).parent.parent
  git = lambda *words: subprocess.run(
    ['git', *words], cwd=root, capture_output=True, text=True, check=True
  ).stdout.strip()
  try:
    # An installed package may be inside the checkout of another project.
    if pathlib.Path(git('rev-parse', '--show-toplevel')).resolve() != root.resolve():
      return None
    return git('describe', '--always', '--dirty', '--abbrev=12')
  except (OSError, subprocess.CalledProcessError):
    return None
