"""Pictures and masks in files, for the tests that fill them."""

import numpy as np
import toy_system
from PIL import Image

rng = np.random.default_rng(2)


def save(path, height=20, width=24, channels=3):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
  Image.fromarray(image).save(path)
  return image


def save_mask(path, height=20, width=24):
  path.parent.mkdir(parents=True, exist_ok=True)
  toy_system.save_mask(path, toy_system.hole(height, width))
  return toy_system.hole(height, width) > 0


def contents(folder):
  return {p: p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def desk(tmp_path):
  """A folder with pictures, masks, and what is neither."""
  for name in ('a.png', 'images/b.png', 'm2.png'):
    save(tmp_path / name)
  save(tmp_path / 'alpha.png', channels=4)
  for name in ('m.png', 'masks/m.png', 'others/x.png', 'twice/b.png', 'twice/b_mask.png'):
    save_mask(tmp_path / name)
  save_mask(tmp_path / 'square.png', 20, 20)
  (tmp_path / 'nothing').mkdir()
  (tmp_path / 'text.png').write_text('no image')
  return tmp_path
