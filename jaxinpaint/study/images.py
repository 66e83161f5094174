"""The test images of a study: drawn with a seed from the sorted names of a whole data set."""

import os
import pathlib
from collections.abc import Iterable

import numpy as np

from jaxinpaint.data import sources
from jaxinpaint.data.held_out import Subset


def draw(source: sources.Source, count: int, seed: int, name: str = 'the data set') -> Subset:
  """`count` images, drawn from the sorted names; a smaller count draws a part of the same images.

  Raises:
    ValueError: the source has fewer than `count` images.
  """
  n = len(source)
  if count > n:
    raise ValueError(
      f'{count} test images are wanted of {name}, which has {n}: give the whole set, or at most '
      f'--count {n}'
    )
  in_order = sorted(range(n), key=source.path)
  chosen = np.random.default_rng(seed).permutation(n)[:count]
  return Subset(source, tuple(in_order[i] for i in sorted(chosen)))


def names_of(images: Subset) -> list[str]:
  """Names within the data set, the same on every machine."""
  paths = [images.path(i) for i in range(len(images))]
  every = [images.whole.path(i) for i in range(len(images.whole))]
  root = os.path.commonpath([os.path.dirname(p) for p in every]) if paths else ''
  return [os.path.relpath(p, root) if root else p for p in paths]


def write_lists(drawn: Subset, folder: pathlib.Path, name: str, rest: bool) -> None:
  """NAME_test.txt, and with `rest` NAME_train.txt of what was not drawn: sources 'files:LIST'."""

  def write(part: str, paths: Iterable[str]) -> None:
    lines = (os.path.abspath(p) if os.path.exists(p) else p for p in paths)
    (folder / f'{name}_{part}.txt').write_bytes(b''.join(os.fsencode(p) + b'\n' for p in lines))

  write('test', (drawn.path(i) for i in range(len(drawn))))
  if rest:
    taken = set(drawn.indices)
    others = (i for i in range(len(drawn.whole)) if i not in taken)
    write('train', (drawn.whole.path(i) for i in others))
