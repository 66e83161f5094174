"""Digests in hex, of files and of what is in memory: SHA-256, or what a file was published with."""

import hashlib
import os

import numpy as np


def of_file(path: str | os.PathLike, kind: str = 'sha256') -> str:
  """SHA-256 (or 'md5') of a file, which is read in pieces."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, kind).hexdigest()


def of(*parts: bytes | np.ndarray) -> str:
  """SHA-256 of the bytes of all parts in turn; of an array, its values in C order."""
  digest = hashlib.sha256()
  for part in parts:
    digest.update(np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part)
  return digest.hexdigest()
