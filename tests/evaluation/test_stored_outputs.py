"""Files as rows, pairs of files, and several rows by the command."""

import json
import os

import cv2
import numpy as np
import pytest
from asked import flags
from PIL import Image

from jaxinpaint.cli import evaluate as evaluate_command
from jaxinpaint.cli import evaluation as command
from jaxinpaint.evaluation import (
  classical,
  folders,
  pairs,
)
from jaxinpaint.evaluation.evaluate import evaluate
from jaxinpaint.evaluation.spec import EvaluationSpec
from jaxinpaint.metrics import protocols
from jaxinpaint.pictures import decode
from jaxinpaint.report import tables

BINS = protocols.parse_bins(['10-20', '20-40'])
PROTOCOL = protocols.get('seed000')
SIZE = 24


def write(folder, name, image):
  folder.mkdir(parents=True, exist_ok=True)
  cv2.imwrite(str(folder / name), image[..., ::-1] if image.ndim == 3 else image)
  return str(folder / name)


@pytest.fixture
def photos(tmp_path, photographs):
  """Four photographs of 24 x 24."""
  crops = [p[k : k + SIZE, :SIZE] for p, k in zip([*photographs] * 2, range(4), strict=False)]
  for k, crop in enumerate(crops):
    write(tmp_path / 'photos', f'{k}.png', crop)
  return tmp_path / 'photos'


def request(photos, output, *rows, **others):
  defaults = dict(
    data=f'folder:{photos}', split='', size=SIZE, masks='strokes', batch_size=3, output=output
  )
  return flags(row=list(rows), **defaults | others)


def fill_folder(photos, folder, name):
  """Navier-Stokes as some other program would write it, by `name(stem, bin)`."""
  ask = request(photos, folder.parent / 'unused', f'x={photos}', bins=[])
  from jaxinpaint.masks import sets

  masks = sets.make(ask.masks, BINS, SIZE, SIZE)
  for b in BINS:
    for i, path in enumerate(sorted(photos.iterdir())):
      truth = cv2.imread(str(path))[..., ::-1]
      hole = masks[b](i)
      image = np.where(hole[..., None] > 0, 0, truth / np.float32(255)).astype(np.float32)
      output = classical.navier_stokes(image[None], hole[None, ..., None].astype(np.float32), None)
      file = folder / name(path.stem, b.label)
      write(file.parent, file.name, np.round(output[0] * 255).astype(np.uint8))


LAYOUTS = {
  'subfolders': lambda stem, label: f'{label}/{stem}.png',
  'behind the name': lambda stem, label: f'{stem}_{label}.png',
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_folder_of_outputs_is_a_row(photos, tmp_path, layout):
  fill_folder(photos, tmp_path / 'theirs', LAYOUTS[layout])
  ask = request(
    photos, tmp_path / 'out', f'theirs={tmp_path / "theirs"}', fills=['ns'],
    bins=['10-20', '20-40'], baseline='ns',
  )  # fmt: skip
  results = command.prepare(ask).run()
  assert results.kinds == {'theirs': 'files', 'Navier-Stokes': 'fill'}
  assert results.baseline == 'Navier-Stokes'
  theirs, ours = ([r.values for r in results.records if r.predictor == n] for n in results.kinds)
  assert theirs == ours and len(ours) == 8
  assert not any('known pixels' in note for note in results.notes)
  assert 'files in' in results.notes['theirs']


def test_known_pixels_of_files_are_counted_and_replaced(photos, tmp_path):
  fill_folder(photos, tmp_path / 'theirs', LAYOUTS['subfolders'])
  for name in ('0.png', '2.png'):
    path = tmp_path / 'theirs' / '20-40' / name
    image = cv2.imread(str(path)).astype(int)
    cv2.imwrite(str(path), np.clip(image + 3, 0, 255).astype(np.uint8))
  ask = request(
    photos, tmp_path / 'out', f'theirs={tmp_path / "theirs"}', fills=['ns'], bins=['10-20', '20-40']
  )  # fmt: skip
  results = command.prepare(ask).run()
  assert results.notes['known pixels of theirs'] == (
    'differ from the truth in 2 of 8 outputs, by up to 3 of 255; replaced by the truth before it '
    'is measured'
  )
  psnr = lambda name: np.array(results.values(name, BINS[1], 'psnr'))
  hole = lambda name: np.array(results.values(name, BINS[1], 'hole_psnr'))
  # Whole-image error is the hole's alone.
  share = np.array([r.hole_share for r in results.records if r.predictor == 'theirs'][4:])
  np.testing.assert_allclose(psnr('theirs'), hole('theirs') - 10 * np.log10(share))


def test_folders_that_cannot_be_a_row(photos, tmp_path):
  images = [str(p) for p in sorted(photos.iterdir())]
  one = tmp_path / 'one'
  find = lambda folder, bins=BINS: folders.find('x', folder, images, bins, (SIZE, SIZE))
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    find(tmp_path / 'nowhere')
  for k in range(4):
    write(one, f'{k}.png', np.zeros((SIZE, SIZE, 3), np.uint8))
  with pytest.raises(ValueError, match=r'holes differ from bin to bin: write those of 10-20 to'):
    find(one)
  assert find(one, BINS[:1]).load(2, BINS[0]).shape == (SIZE, SIZE, 3)
  (one / '2.png').unlink()
  with pytest.raises(
    ValueError, match=r'no output of 10-20 for 1 of 4 images, first .*2.png: write'
  ):
    find(one, BINS[:1])
  write(one, '2.png', np.zeros((SIZE, SIZE + 1, 3), np.uint8))
  with pytest.raises(ValueError, match=r'2.png is 24 x 25, the images are 24 x 24'):
    find(one, BINS[:1])
  write(one, '2.jpg', np.zeros((SIZE, SIZE, 3), np.uint8))
  with pytest.raises(ValueError, match='have the same name: keep one'):
    find(one, BINS[:1])
  with pytest.raises(ValueError, match='have the same name, so that files cannot be told apart'):
    folders.stems_of([images[0], images[0]])
  # Images that are no files go by their number.
  assert folders.stems_of(['tfds:x/test#7', 'tfds:x/test#9']) == ['00000', '00001']


def test_the_size_of_a_turned_photograph(tmp_path):
  image = Image.new('RGB', (30, 20))
  exif = image.getexif()
  exif[0x0112] = 6
  image.save(tmp_path / 'turned.jpg', exif=exif)
  assert decode.size_of(tmp_path / 'turned.jpg') == (30, 20)


def noisy(photos, folder):
  rng = np.random.default_rng(0)
  for path in photos.iterdir():
    image = cv2.imread(str(path))[..., ::-1].astype(int)
    write(
      folder, path.name, np.clip(image + rng.integers(-9, 9, image.shape), 0, 255).astype(np.uint8)
    )


def test_pairs_without_masks(photos, tmp_path):
  noisy(photos, tmp_path / 'fake')
  ask = flags(
    real_dir=photos, fake_dir=[f'mine={tmp_path / "fake"}', f'truth={photos}'],
    output=tmp_path / 'out', batch_size=3,
  )  # fmt: skip
  results = command.prepare(ask).run()
  assert results.predictors == ('mine', 'truth') and [b.label for b in results.bins] == ['all']
  assert {m.name for m in results.protocol.metrics} == {'psnr', 'ssim', 'l1_percent'}
  assert results.kinds == {'mine': 'files', 'truth': 'files'} and results.size == (SIZE, SIZE)
  for record in results.records:
    real, fake = (
      cv2.imread(str(folder / f'{record.index}.png')).astype(float)
      for folder in (photos, tmp_path / 'fake' if record.predictor == 'mine' else photos)
    )
    mse = ((real - fake) ** 2).mean()
    assert record.values['psnr'] == (
      np.inf if mse == 0 else pytest.approx(10 * np.log10(255**2 / mse))
    )
  assert 'nothing is pasted' in results.notes['measured']
  found = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
  assert {r['metric'] for r in found['results']} == {'psnr', 'ssim', 'l1_percent'}


def test_names_that_are_no_text(photos, tmp_path, capsys):
  latin = os.fsdecode(b'caf\xe9')
  noisy(photos, tmp_path / 'fake')
  photos = photos.rename(tmp_path / latin)
  for folder in (photos, tmp_path / 'fake'):
    (folder / '0.png').rename(folder / f'{latin}.png')
  argv = [f'--real_dir={photos}', f'--fake_dir=mine={tmp_path / "fake"}', '--noresume']
  assert evaluate_command.main([*argv, f'--output={tmp_path / "out"}']) == 0
  assert r'caf\udce9' in capsys.readouterr().out
  for file in ('per_image.csv', 'metrics.json', 'report.md', 'report.html'):
    assert r'caf\udce9' in (tmp_path / 'out' / file).read_text(encoding='utf-8'), file


def test_pairs_with_masks(photos, tmp_path):
  noisy(photos, tmp_path / 'fake')
  shares = (0.15, 0.25, 0.35, 0.9)
  for k, share in enumerate(shares):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask.flat[: round(share * SIZE**2)] = 255
    write(tmp_path / 'masks', f'{k}.png', mask)
  found = pairs.find(photos, {'mine': tmp_path / 'fake'}, tmp_path / 'masks', PROTOCOL, bins=BINS)
  results = evaluate(EvaluationSpec(found.rows, found.on, found.protocol, batch_size=2))
  assert [(r.bin, r.index) for r in results.records] == [(BINS[0], 0), (BINS[1], 1), (BINS[1], 2)]
  assert 'hole_psnr' in results.records[0].values
  assert found.notes['outside of all bins'].startswith('1 of 4')
  assert 'replaced by the truth' in found.notes['measured']
  # Noise outside of the hole does not count: it is replaced, and counted.
  for r in results.records:
    assert r.values['l1_percent'] == pytest.approx(r.values['hole_l1_percent'] * r.hole_share)
  assert 'differ from the truth in 3 of 3 outputs' in results.notes['known pixels of mine']
  with pytest.raises(ValueError, match=r'none of the 4 has a hole of 50-60 % .* 14.9 to 89.9 %'):
    pairs.find(
      photos, {'mine': tmp_path / 'fake'}, tmp_path / 'masks', PROTOCOL,
      bins=protocols.parse_bins(['50-60']),
    )  # fmt: skip
  assert tables.terminal_table(results)


def test_a_pair_that_cannot_be_read_is_left_out(photos, tmp_path):
  noisy(photos, tmp_path / 'fake')
  (tmp_path / 'fake' / '1.png').write_bytes(b'no image')
  ask = dict(real_dir=photos, fake_dir=[str(tmp_path / 'fake')], output=tmp_path / 'out')
  results = command.prepare(flags(**ask)).run()
  assert results.predictors == ('fake',) and results.count == 3
  assert results.skipped[0][0].endswith('fake/1.png')
  with pytest.raises(command.EvaluationError, match=r'fake/1.png: not a readable image'):
    command.prepare(flags(**ask, on_unreadable='fail')).run()


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    (dict(real_dir=None), 'give both --real_dir'),
    (dict(fake_dir=[]), 'give both --real_dir'),
    (dict(fake_dir=['a=/nowhere']), 'there is no folder /nowhere'),
    (dict(fake_dir=['a=FAKE', 'a=FAKE']), 'two rows have this name'),
    (dict(fake_dir=['few=FEW']), 'has no file for 3 of 4 real images, first 1'),
    (dict(mask_dir='EMPTY'), 'masks: the folder'),
    (dict(real_dir='MIXED'), 'is 30 x 24, the images are 24 x 24'),
    (dict(row=['a=b'], size=3), '--row, --size cannot be joined with --real_dir'),
    (dict(baseline='b'), "--baseline 'b' must be one of the rows: fake"),
  ],
)
def test_bad_pairs_are_named(photos, tmp_path, changes, sentence):
  noisy(photos, tmp_path / 'fake')
  write(tmp_path / 'few', '0.png', np.zeros((SIZE, SIZE, 3), np.uint8))
  (tmp_path / 'empty').mkdir()
  noisy(photos, tmp_path / 'mixed')
  write(tmp_path / 'mixed', '3.png', np.zeros((30, SIZE, 3), np.uint8))
  names = dict(FAKE='fake', FEW='few', EMPTY='empty', MIXED='mixed')

  def placed(value):
    if isinstance(value, list):
      return list(map(placed, value))
    for word, name in names.items():
      value = value.replace(word, str(tmp_path / name)) if isinstance(value, str) else value
    return value

  ask = dict(real_dir=str(photos), fake_dir=[str(tmp_path / 'fake')], output=tmp_path / 'out')
  with pytest.raises(command.EvaluationError) as caught:
    command.prepare(flags(**ask | {k: placed(v) for k, v in changes.items()}))
  assert sentence in str(caught.value)
