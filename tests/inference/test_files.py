"""Files in, files out: pairs, protection of what is on disk, sentences for mistakes."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import picture_files
import pytest
import toy_system
from picture_files import contents, save, save_mask
from PIL import Image, PngImagePlugin

from jaxinpaint.inference import pairs
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.files import inpaint_files
from jaxinpaint.inference.inpainter import Inpainter
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.predictor import Predictor

rng = np.random.default_rng(2)


def run(*args, **options):
  said = []
  report = inpaint_files(toy_system.inpainter(), *args, say=said.append, **options)
  return report, said


def test_one_file(tmp_path):
  image = save(tmp_path / 'a.png', channels=4)
  hole = save_mask(tmp_path / 'm.png')
  before = contents(tmp_path)
  report, said = run(tmp_path / 'a.png', tmp_path / 'm.png', tmp_path / 'new' / 'out.png')
  assert report.written == [tmp_path / 'new' / 'out.png'] and not report.failed
  out = np.asarray(Image.open(tmp_path / 'new' / 'out.png'))
  assert (out[~hole] == image[~hole]).all() and (out[..., 3] == image[..., 3]).all()
  assert (out[hole][:, :3] == [51, 153, 204]).all() or (image[hole][:, 3] < 255).any()
  assert contents(tmp_path).items() > before.items()
  assert any('transparent' in s for s in said)


def test_pictures_are_written_beside_and_never_over_a_file(tmp_path):
  save(tmp_path / 'in' / 'sub' / 'a.jpg')
  save_mask(tmp_path / 'm.png')
  draw = lambda variables, constants, image, mask, rng: {'coarse': image, 'where': mask}
  inference = toy_system.inference(multiple=8, min_side=16, pictures=draw)
  painter = Inpainter(Predictor(inference, toy_system.variables()), name='toy')
  arguments = (painter, tmp_path / 'in', tmp_path / 'm.png', tmp_path / 'out')
  folder = tmp_path / 'seen'
  report = inpaint_files(*arguments, pictures=folder, say=print)
  assert len(report.written) == 1
  sizes = {p.name: Image.open(p).size for p in sorted((folder / 'sub').iterdir())}
  assert sizes == {'a.coarse.png': (24, 20), 'a.where.png': (24, 20)}
  (tmp_path / 'out' / 'sub' / 'a.jpg').unlink()
  before = contents(folder)
  report = inpaint_files(*arguments, pictures=folder, say=print)
  assert 'a.coarse.png exists' in report.failed[0][1] and contents(folder) == before
  with pytest.raises(InpaintError, match='toy has no pictures'):
    run(tmp_path / 'in', tmp_path / 'm.png', tmp_path / 'out2', pictures=folder)


def random_colour(variables, constants, image, mask, rng):
  return jnp.broadcast_to(jax.random.uniform(rng, (3,)), image.shape)


def test_several_completions_are_numbered_and_those_of_the_sample(tmp_path):
  images = {name: save(tmp_path / 'in' / f'{name}.png') for name in ('a', 'b', 'lone')}
  hole = save_mask(tmp_path / 'masks' / 'a.png')
  save_mask(tmp_path / 'masks' / 'b.png')
  painter = toy_system.inpainter(random_colour, samples=True)
  places = tmp_path / 'in', tmp_path / 'masks', tmp_path / 'out'
  said = []
  report = inpaint_files(painter, *places, samples=3, say=said.append)
  assert sorted(os.listdir(tmp_path / 'out')) == [f'{n}.{k}.png' for n in 'ab' for k in (1, 2, 3)]
  assert len(report.written) == 6 and len(said) == 1  # the image without a mask, once
  assert [path.name for path, _ in report.failed] == ['lone.png']
  colours = []
  for number, name in enumerate('ab'):
    for k in range(3):
      out = np.asarray(Image.open(tmp_path / 'out' / f'{name}.{k + 1}.png'))
      assert (out[~hole] == images[name][~hole]).all()
      # As an evaluation of this folder draws it: by the numbers of the image and the sample.
      key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), number), k)
      assert np.abs(out[hole] / 255 - np.asarray(jax.random.uniform(key, (3,)))).max() < 0.003
      colours.append(tuple(out[hole][0]))
  assert len(set(colours)) == 6
  both = painter(images['a'], hole, 1)
  np.testing.assert_array_equal(both, Image.open(tmp_path / 'out' / 'a.2.png'))
  with pytest.raises(FileExistsError, match=r'a\.1\.png and 5 other outputs exist'):
    inpaint_files(painter, *places, samples=3)
  for other, samples, message in (
    (toy_system.inpainter(), 2, 'toy draws no random numbers, so all 2 completions'),
    (painter, 0, 'samples 0 must be at least 1'),
  ):
    with pytest.raises(InpaintError, match=message):
      inpaint_files(other, *places, samples=samples, overwrite=True)


def test_folders_pair_by_name_and_keep_format(tmp_path):
  images, masks, out = (tmp_path / n for n in ('images', 'masks', 'out'))
  names = ['a.png', 'b.jpg', 'sub/c.webp', 'd.tif', 'e.bmp', 'f.jpeg']
  for i, name in enumerate(names):
    save(images / name, width=24 + 8 * (i % 2))
  mask_names = ['a.png', 'b_mask.png', 'sub/c-mask.gif', 'd_mask001.png', 'e.bmp', 'f.jpg', 'z.png']
  for i, name in enumerate(mask_names):
    save_mask(masks / name, width=24 + 8 * (i % 2))
  report, said = run(images, masks, out)
  assert not report.failed
  assert sorted(report.written) == sorted(out / n for n in names)
  for name in names:
    before, after = Image.open(images / name), Image.open(out / name)
    assert after.format == before.format and after.size == before.size
  assert [s for s in said if '1 masks belong to no image' in s and 'z.png' in s]
  # One sentence for both JPEGs.
  assert len([s for s in said if 'JPEG stores known pixels again' in s and 'in 2 of 6' in s]) == 1


def test_one_mask_for_all_and_another_format(tmp_path):
  for name in ('a.png', 'b.jpg'):
    save(tmp_path / 'images' / name)
  hole = save_mask(tmp_path / 'm.png')
  report, _ = run(tmp_path / 'images', tmp_path / 'm.png', tmp_path / 'out', format='png')
  assert sorted(p.name for p in report.written) == ['a.png', 'b.png']
  before = np.asarray(Image.open(tmp_path / 'images' / 'b.jpg'))
  after = np.asarray(Image.open(tmp_path / 'out' / 'b.png'))
  assert (after[~hole] == before[~hole]).all() and (after[hole] == [51, 153, 204]).all()


def test_masks_beside_their_images(tmp_path):
  save(tmp_path / 'a.png')
  save_mask(tmp_path / 'a_mask.png')
  report, _ = run(tmp_path, tmp_path, tmp_path / 'out')
  assert [p.name for p in report.written] == ['a.png'] and not report.failed
  # A second run does not take the first one's results for images.
  report, _ = run(tmp_path, tmp_path, tmp_path / 'out', overwrite=True)
  assert [p.name for p in report.written] == ['a.png'] and not report.failed


def test_masks_in_a_folder_among_the_images(tmp_path):
  save(tmp_path / 'a.png')
  save_mask(tmp_path / 'masks' / 'a.png')
  report, _ = run(tmp_path, tmp_path / 'masks', tmp_path / 'out')
  assert [p.name for p in report.written] == ['a.png'] and not report.failed


def test_a_link_to_itself_fails_alone(tmp_path):
  save(tmp_path / 'a.png')
  (tmp_path / 'loop.png').symlink_to('loop.png')
  save_mask(tmp_path / 'masks' / 'm.png')
  report, _ = run(tmp_path, tmp_path / 'masks' / 'm.png', tmp_path / 'out')
  assert [p.name for p in report.written] == ['a.png']
  assert [p.name for p, _ in report.failed] == ['loop.png']


def test_a_bad_pair_does_not_stop_the_others(tmp_path):
  images, masks = tmp_path / 'images', tmp_path / 'masks'
  for name in ('good', 'small_mask', 'unpaired', 'broken', 'broken_mask', 'full'):
    save(images / f'{name}.png')
    if name != 'unpaired':
      save_mask(masks / f'{name}.png')
  (images / 'broken.png').write_bytes(b'no image')
  (masks / 'broken_mask.png').unlink()
  (masks / 'broken_mask.jpg').write_bytes((images / 'good.png').read_bytes()[:90])
  save_mask(masks / 'small_mask.png', 9, 9)
  Image.new('L', (24, 20), 255).save(masks / 'full.png')
  report, said = run(images, masks, tmp_path / 'out')
  assert [p.name for p in report.written] == ['good.png']
  reasons = {p.stem: reason for p, reason in report.failed}
  assert set(reasons) == {'small_mask', 'unpaired', 'broken', 'broken_mask', 'full'}
  assert 'no mask has its name' in reasons['unpaired']
  assert (
    'is 9 x 9 pixels' in reasons['small_mask'] and 'make the mask 24 x 20' in reasons['small_mask']
  )
  assert 'no known image format' in reasons['broken']
  assert 'broken_mask.jpg' in reasons['broken_mask']
  assert 'every pixel is hole' in reasons['full'] and not any('mask is full' in s for s in said)
  assert len([s for s in said if s.startswith('error: ')]) == 5


def test_an_empty_mask_copies_the_file_and_says_so(tmp_path):
  save(tmp_path / 'a.jpg')
  Image.new('L', (24, 20), 0).save(tmp_path / 'm.png')
  _, said = run(tmp_path / 'a.jpg', tmp_path / 'm.png', tmp_path / 'out.jpg')
  assert (tmp_path / 'out.jpg').read_bytes() == (tmp_path / 'a.jpg').read_bytes()
  assert any('mask is empty' in s for s in said)
  run(tmp_path / 'a.jpg', tmp_path / 'm.png', tmp_path / 'out.png')
  assert (np.asarray(Image.open(tmp_path / 'out.png')) == Image.open(tmp_path / 'a.jpg')).all()


def test_inverted_masks(tmp_path):
  image = save(tmp_path / 'a.png')
  hole = save_mask(tmp_path / 'm.png')
  Image.fromarray(np.where(hole, 0, 255).astype(np.uint8)).save(tmp_path / 'i.png')
  _, said = run(tmp_path / 'a.png', tmp_path / 'i.png', tmp_path / 'o.png', invert_mask=True)
  out = np.asarray(Image.open(tmp_path / 'o.png'))
  assert not said and (out[~hole] == image[~hole]).all() and (out != image).any()
  small = np.full((20, 24), 255, np.uint8)
  small[8:12, 8:12] = 0
  Image.fromarray(small).save(tmp_path / 'i.png')
  _, said = run(tmp_path / 'a.png', tmp_path / 'i.png', tmp_path / 'o2.png')
  assert any('looks inverted' in s and 'pass invert_mask=True' in s for s in said)


def test_a_mask_of_another_scale_is_resized_with_a_warning(tmp_path):
  image = save(tmp_path / 'a.png', 20, 24)
  save_mask(tmp_path / 'm.png', 40, 48)
  _, said = run(tmp_path / 'a.png', tmp_path / 'm.png', tmp_path / 'o.png')
  out = np.asarray(Image.open(tmp_path / 'o.png'))
  hole = toy_system.hole(20, 24) > 0
  assert (out[~hole] == image[~hole]).all() and (out[hole] == [51, 153, 204]).all()
  assert any('48 x 40' in s and 'was resized' in s for s in said)


@pytest.mark.parametrize('stored', [False, True])
def test_the_mask_of_a_turned_photograph(stored, tmp_path):
  image = Image.fromarray(np.full((16, 32, 3), 90, np.uint8))
  exif = image.getexif()
  exif[0x0112] = 6  # seen 32 high and 16 wide
  image.save(tmp_path / 'a.png', exif=exif)
  mask = np.zeros((16, 32) if stored else (32, 16), np.uint8)
  mask[:4, :6] = 255
  toy_system.save_mask(tmp_path / 'm.png', mask)
  _, said = run(tmp_path / 'a.png', tmp_path / 'm.png', tmp_path / 'o.png')
  out = np.asarray(Image.open(tmp_path / 'o.png'))
  changed = (out != 90).any(-1)
  want = mask > 0 if stored else np.rot90(mask > 0, 1)
  assert (changed == want).all()
  assert any('EXIF turns' in s for s in said) == stored


def test_long_images_are_reduced_and_it_is_said(tmp_path):
  image = save(tmp_path / 'a.png', 60, 100)
  hole = save_mask(tmp_path / 'm.png', 60, 100)
  said = []
  inpainter = toy_system.inpainter(max_side=32)
  inpaint_files(
    inpainter, tmp_path / 'a.png', tmp_path / 'm.png', tmp_path / 'o.png', say=said.append
  )
  out = np.asarray(Image.open(tmp_path / 'o.png'))
  assert (out[~hole] == image[~hole]).all() and any('longer than 32 pixels' in s for s in said)


def test_how_a_large_picture_is_completed_is_said_and_reported(tmp_path):
  image = save(tmp_path / 'a.png', 60, 1100)
  hole = np.zeros((60, 1100), np.uint8)
  hole[20:30, 500:520] = 255
  toy_system.save_mask(tmp_path / 'm.png', hole)
  said = []
  paths = tmp_path / 'a.png', tmp_path / 'm.png', tmp_path / 'o.png'
  report = inpaint_files(toy_system.inpainter(), *paths, say=said.append)
  sentence = '1100 x 60 pixels, completed in 1 window at full resolution'
  assert report.plans == [(paths[0], sentence)] and said == [f'{paths[0]}: {sentence}']
  out = np.asarray(Image.open(tmp_path / 'o.png'))
  assert (out[hole == 0] == image[hole == 0]).all() and (out[hole > 0] != 0).any()


def test_an_interrupted_folder_goes_on_where_it_was(tmp_path):
  for name in 'abc':
    save(tmp_path / 'in' / f'{name}.png')
    save_mask(tmp_path / 'masks' / f'{name}.png')
  places = tmp_path / 'in', tmp_path / 'masks', tmp_path / 'out'
  run(*places)
  whole = contents(tmp_path / 'out')
  (tmp_path / 'out' / 'b.png').write_bytes(b'kept')
  (tmp_path / 'out' / 'c.png').unlink()
  report, said = run(*places, resume=True)
  assert report.written == [tmp_path / 'out' / 'c.png']
  assert said == ['2 of 3 outputs are there already and are left as they are']
  again = contents(tmp_path / 'out')
  assert again == whole | {tmp_path / 'out' / 'b.png': b'kept'}
  with pytest.raises(InpaintError, match='choose one'):
    run(*places, resume=True, overwrite=True)
  with pytest.raises(InpaintError, match='is the input'):
    run(places[0], places[1], places[0], resume=True)


def test_resuming_and_frames_decide_the_random_numbers(tmp_path):
  def random_colour(variables, constants, image, mask, rng):
    return jnp.broadcast_to(jax.random.uniform(rng, (3,)), image.shape)

  for name in 'abc':
    save(tmp_path / 'in' / f'{name}.png')
  save_mask(tmp_path / 'm.png')
  painter = toy_system.inpainter(random_colour, samples=True)

  def colours(output, **options):
    inpaint_files(painter, tmp_path / 'in', tmp_path / 'm.png', output, say=print, **options)
    return [tuple(np.asarray(Image.open(output / f'{name}.png'))[-1, -1]) for name in 'abc']

  straight = colours(tmp_path / 'out')
  assert len(set(straight)) == 3
  (tmp_path / 'out' / 'c.png').unlink()  # an image keeps its number, whatever is left to do
  assert colours(tmp_path / 'out', resume=True) == straight
  assert set(colours(tmp_path / 'film', frames=True)) == {straight[0]}


MISTAKES = {
  'no image': (('none.png', 'm.png', 'o.png'), FileNotFoundError, r'no image .*none\.png'),
  'no mask': (('a.png', 'none.png', 'o.png'), FileNotFoundError, r'no mask .*none\.png'),
  'mask folder': (('a.png', 'masks', 'o.png'), InpaintError, 'mask .* is a folder: name the mask'),
  'output file': (('images', 'm.png', 'o.png'), InpaintError, 'output must be a folder'),
  'ending': (('a.png', 'm.png', 'o.xyz'), InpaintError, r'ends in \.xyz; wanted is one of \.png'),
  'exists': (('a.png', 'm.png', 'm2.png'), FileExistsError, r'm2\.png exists: pass --overwrite'),
  'no pair': (('images', 'others', 'out'), InpaintError, r'no mask in .*b\.png or b_mask\.png'),
  'no masks': (('images', 'nothing', 'out'), InpaintError, 'masks: the folder .* holds no file'),
  'no images': (('nothing', 'm.png', 'out'), InpaintError, 'images: the folder .* holds no file'),
  'no picture': (('text.png', 'm.png', 'o.png'), UnreadableImage, r'text\.png: not a readable'),
  'no mask file': (('a.png', 'text.png', 'o.png'), UnreadableImage, r'text\.png: not a readable'),
  'size': (
    ('a.png', 'square.png', 'o.png'),
    InpaintError,
    'shapes differ, so make the mask 24 x 20',
  ),
  'alpha': (('alpha.png', 'm.png', 'o.jpg'), InpaintError, 'JPEG file cannot hold'),
  'two masks': (('images', 'twice', 'out'), InpaintError, '2 masks fit the image'),
}


@pytest.fixture
def desk(tmp_path):
  return picture_files.desk(tmp_path)


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_get_a_sentence_and_change_nothing(mistake, desk):
  names, error, words = MISTAKES[mistake]
  before = contents(desk)
  with pytest.raises(error, match=words):
    run(*(desk / n for n in names))
  assert contents(desk) == before


def test_inputs_are_never_overwritten(desk):
  before = contents(desk)
  os.link(desk / 'a.png', desk / 'same.png')
  for output in ('a.png', 'm.png', 'same.png'):
    with pytest.raises(InpaintError, match='never overwritten'):
      run(desk / 'a.png', desk / 'm.png', desk / output, overwrite=True)
  with pytest.raises(InpaintError, match='never overwritten'):
    run(desk / 'images', desk / 'm.png', desk / 'images', overwrite=True)
  assert contents(desk).items() >= before.items()


def test_overwriting_is_atomic(desk, monkeypatch):
  run(desk / 'a.png', desk / 'm.png', desk / 'm2.png', overwrite=True)
  before = contents(desk)

  def broken(*args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', broken)
  with pytest.raises(OSError, match='No space left'):
    run(desk / 'alpha.png', desk / 'm.png', desk / 'm2.png', overwrite=True)
  assert contents(desk) == before


def test_outputs_that_would_collide(desk):
  save(desk / 'images' / 'b.jpg')
  with pytest.raises(InpaintError, match=r'would both be written to .*b\.png'):
    pairs.find(desk / 'images', desk / 'm.png', desk / 'out', format='png')


def test_pictures_too_small_to_be_refined_are_named(tmp_path):
  refined = lambda v, c, image, mask, rng: jnp.ones_like(image)
  system = toy_system.inference(multiple=8, refined=refined, refined_side=32)
  painter = Inpainter(Predictor(system, toy_system.variables(), refine=True), name='toy')
  for name, height in (('small', 20), ('large', 40)):
    save(tmp_path / 'in' / f'{name}.png', height, 60)
    save_mask(tmp_path / 'masks' / f'{name}.png', height, 60)
  report = inpaint_files(painter, tmp_path / 'in', tmp_path / 'masks', tmp_path / 'out', say=print)
  [said] = report.warnings
  assert said.startswith('1 of 2 images were not refined') and 'less than 32 pixels' in said
  large = [tmp_path / part / 'large.png' for part in ('in', 'masks', 'out2.png')]
  assert inpaint_files(painter, *large[:2], large[2].parent, say=print).warnings == []


def test_a_failing_file_stops_no_other_and_unholdable_metadata_is_named(tmp_path):
  """Limits of encoders, links to nothing, and outputs that are not finite."""
  images = tmp_path / 'in'
  for name in ('a', 'good', 'long', 'nan'):
    save(images / f'{name}.png')
  text = PngImagePlugin.PngInfo()
  text.add_itxt('XML:com.adobe.xmp', 'x' * 90_000)
  exif = Image.Exif()
  exif[0x010E] = 'd' * 70_000  # description
  Image.open(images / 'a.png').save(images / 'a.png', pnginfo=text, exif=exif)
  save(images / 'long.png', 2, 65_600)  # JPEG's sides end at 65,500
  save(images / 'nan.png', 30, 24)
  (images / 'link.png').symlink_to('nowhere.png')
  for name, size in (('a', (20, 24)), ('good', (20, 24)), ('long', (2, 65_600)), ('nan', (30, 24))):
    save_mask(tmp_path / 'masks' / f'{name}.png', *size)
  save_mask(tmp_path / 'masks' / 'link.png')

  def output(variables, constants, image, mask, rng):
    return image + (jnp.nan if image.shape[1] == 32 else 0)

  painter = toy_system.inpainter(output, max_side=64)
  said = []
  arguments = (painter, images, tmp_path / 'masks', tmp_path / 'out')
  report = inpaint_files(*arguments, format='jpg', say=said.append)
  assert sorted(p.name for p in report.written) == ['a.jpg', 'good.jpg']
  assert sorted(p.name for p in report.written) == sorted(os.listdir(tmp_path / 'out'))
  reasons = {path.name: reason for path, reason in report.failed}
  assert sorted(reasons) == ['link.png', 'long.png', 'nan.png']
  assert 'cannot be written as JPEG' in reasons['long.png']
  assert 'not finite' in reasons['nan.png']
  lost = [s for s in said if 'left out of 1 of 2 images' in s]
  assert sorted(s.split()[1] for s in lost) == ['EXIF', 'XMP']
