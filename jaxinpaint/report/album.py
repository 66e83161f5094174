"""The pictures of a web page, inside the page: as data URIs, within a budget of bytes."""

import base64
import io
from collections.abc import Hashable

import numpy as np
from PIL import Image

from jaxinpaint import arrays

BUDGET = 16 * 2**20  # bytes of all pictures of a page
_QUALITIES = (92, 80, 65)
_LOSSLESS = 128 * 128  # pixels; smaller pictures are PNG, where JPEG's blocks could be seen


class Album:
  """Collects pictures, then encodes all as well as the budget allows.

  Those asked for first are the last to be left out.

  Args:
    budget: bytes of all data URIs together.
  """

  def __init__(self, budget: int = BUDGET):
    """See the class."""
    self._budget = budget
    self._pictures: dict[Hashable, np.ndarray] = {}
    self._uris: dict[Hashable, str] = {}
    self.quality: int | None = None
    self.left_out = 0

  def ask(self, key: Hashable, picture: np.ndarray) -> None:
    """Wants a picture in the page.

    Args:
      key: to get it by.
      picture: uint8[H, W, 3], or float in [0, 1].
    """
    picture = picture if picture.dtype == np.uint8 else arrays.to_uint8(picture)
    self._pictures.setdefault(key, picture)

  def close(self) -> None:
    """Encodes everything asked for: at the best quality that fits, else as many as fit."""
    for quality in _QUALITIES:
      uris = {key: _uri(picture, quality) for key, picture in self._pictures.items()}
      if sum(map(len, uris.values())) <= self._budget:
        break
    room = self._budget
    for key, uri in uris.items():
      room -= len(uri)
      if room < 0:
        break
      self._uris[key] = uri
    self.left_out = len(uris) - len(self._uris)
    if any(u.startswith('data:image/jpeg') for u in self._uris.values()):
      self.quality = quality

  def get(self, key: Hashable) -> str | None:
    """The data URI; None where the picture was not asked for or did not fit."""
    return self._uris.get(key)

  def note(self) -> str:
    """How the pictures were stored; '' where they are as measured and complete."""
    words = []
    if self.quality is not None:
      words.append(
        f'Pictures are stored as JPEG of quality {self.quality}; the numbers are of the originals.'
      )
    if self.left_out:
      words.append(f'{self.left_out} pictures were left out to keep the page small.')
    return ' '.join(words)


def _uri(picture: np.ndarray, quality: int) -> str:
  stream = io.BytesIO()
  image = Image.fromarray(picture)
  if picture.shape[0] * picture.shape[1] <= _LOSSLESS:
    kind = 'png'
    image.save(stream, 'PNG', optimize=True)
  else:
    kind = 'jpeg'
    image.save(stream, 'JPEG', quality=quality, subsampling=0 if quality > 90 else 2)
  return f'data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode("ascii")}'
