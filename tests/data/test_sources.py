import json
import pathlib
import pickle
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxinpaint.cli import prepare as command
from jaxinpaint.data import prepare, sources


@pytest.fixture
def folder(tmp_path, photographs):
  """data/train with three images in two levels, data/val with one."""
  root = tmp_path / 'data'
  for name, image in zip(
    ('train/b.jpg', 'train/deep/a.PNG', 'val/c.webp'), photographs, strict=True
  ):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / name)
  (root / 'train' / 'readme.txt').write_text('not an image')
  (root / 'train' / '.hidden.jpg').write_bytes(b'')
  return root


def names(source):
  return [pathlib.Path(source.path(i)).name for i in range(len(source))]


def test_sample_is_photographs_of_many_scales():
  for split, least in (('train', 300), ('test', 100)):
    source = sources.make('sample', split)
    assert len(source) >= least
    sizes = set()
    for i in range(0, len(source), 7):
      image = source[i]
      assert image.dtype == np.uint8 and image.shape[0] == image.shape[1] and image.shape[2] == 3
      assert 112 <= image.shape[0] <= 256
      sizes.add(image.shape[0])
    assert len(sizes) > 3
    files = {source.path(i).split('[')[0] for i in range(48)}
    assert len(files) >= (8 if split == 'train' else 5)
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(again[5], source[5])


def test_sample_splits_share_no_pixel():
  seen = {}
  for split in ('train', 'test'):
    source = sources.make('sample', split)
    for region, top, left, side in source.windows:
      # Windows are within their region; regions are columns of a photograph.
      first = (region.columns or (0, 0))[0] + left
      covered = seen.setdefault((split, region.file), np.zeros((1000, 1000), bool))
      covered[top : top + side, first : first + side] = True
  tested = [file for split, file in seen if split == 'test']
  assert 'chelsea.png' in tested and ('train', 'chelsea.png') not in seen
  assert ('train', 'rocket.jpg') not in seen
  shared = [file for file in tested if ('train', file) in seen]
  assert shared
  for file in shared:
    assert not (seen['train', file] & seen['test', file]).any()


def test_sample_is_the_wheels_own_pixels():
  from skimage import data

  source = sources.make('sample', 'test')
  for i in range(40):
    region, top, left, side = source.windows[i]
    if region.file == 'chelsea.png' and side <= 256:
      assert np.array_equal(source[i], data.chelsea()[top : top + side, left : left + side])
      return
  raise AssertionError('no window of chelsea among the first 40')


def test_folder(folder, photographs):
  for name in (f'folder:{folder}', str(folder)):
    train, val = sources.make(name, 'train'), sources.make(name, 'val')
    assert names(train) == ['b.jpg', 'a.PNG'] and names(val) == ['c.webp']
  assert np.array_equal(train[1], photographs[1])
  assert np.array_equal(pickle.loads(pickle.dumps(train))[1], photographs[1])
  assert names(sources.make(str(folder / 'train'), 'train')) == ['b.jpg', 'a.PNG']


def test_folder_without_the_split(folder, caplog):
  with pytest.raises(ValueError, match=r"subfolders train, val but none named 'test'"):
    sources.make(str(folder), 'test')
  assert names(sources.make(str(folder / 'val'), 'test')) == ['c.webp']
  assert "no subfolder 'test'" in caplog.text


def test_file_list(folder):
  path = folder / 'list.txt'
  path.write_text('val/c.webp\n\n# comment\ntrain/b.jpg\n')
  for name in (f'files:{path}', str(path)):
    assert names(sources.make(name)) == ['c.webp', 'b.jpg']
  path.write_text('val/c.webp\nval/d.webp\n')
  with pytest.raises(FileNotFoundError, match=r'1 of 2 files .*d.webp'):
    sources.make(f'files:{path}')
  path.write_text('\n')
  with pytest.raises(ValueError, match='names no file'):
    sources.make(f'files:{path}')


def test_unreadable(folder):
  (folder / 'val' / 'c.webp').write_bytes(b'RIFF')
  with pytest.raises(sources.UnreadableImage, match=r'c\.webp'):
    sources.make(str(folder), 'val')[0]


@pytest.mark.parametrize(
  'name,error,message',
  [
    ('', ValueError, "must be 'sample', 'folder:PATH'"),
    ('places365_small', ValueError, r"did you mean 'tfds:places365_small'"),
    ('folder:{}/absent', FileNotFoundError, r'no folder .*/absent .*exists up to'),
    ('{}/absent', FileNotFoundError, r'no folder .*/absent'),
    ('folder:{}', ValueError, r'holds no file ending in .jpg.*\(1 other files\)'),
    ('{}/notes.md', ValueError, r'is a file: give its folder'),
    ('files:{}', ValueError, "is a folder: write 'folder:"),
    ('files:{}/notes.md', ValueError, 'must be a .txt file'),
    ('files:{}/absent.txt', FileNotFoundError, 'there is no list'),
    ('tfds:places365_smal', ValueError, r"no set 'places365_smal'; near: places365_small"),
    ('tfds:celeb_a_hq/257', ValueError, 'BuilderConfig 257 not found'),
  ],
)
def test_wrong_names_say_what_to_do(tmp_path, name, error, message):
  (tmp_path / 'notes.md').write_text('nothing here')
  with pytest.raises(error, match=message):
    sources.make(name.format(tmp_path), data_dir=str(tmp_path / 'tfds'))


def test_sample_has_two_splits():
  with pytest.raises(ValueError, match="'train' and 'test', not 'validation'"):
    sources.make('sample', 'validation')


@pytest.mark.parametrize('name', ['places365_small', 'celeb_a', 'lfw', 'dtd'])
def test_tfds_sets_that_download_themselves_name_the_command(tmp_path, name):
  with pytest.raises(FileNotFoundError) as error:
    sources.make(f'tfds:{name}', data_dir=str(tmp_path))
  want = f'once with: jaxinpaint prepare {name} --data_dir {tmp_path}'
  assert want in str(error.value) and 'docs/data.md' in str(error.value)


@pytest.mark.parametrize(
  'name,file',
  [('celeb_a_hq/256', 'data1024x1024.tar'), ('imagenet2012', 'ILSVRC2012_img_train.tar')],
)
def test_tfds_sets_fetched_by_hand_name_the_files_and_the_folder(tmp_path, name, file, capsys):
  with pytest.raises(FileNotFoundError) as error:
    sources.make(f'tfds:{name}', data_dir=str(tmp_path))
  assert file in str(error.value)
  assert f'Put them into {tmp_path}/downloads/manual' in str(error.value)
  assert f'jaxinpaint prepare {name}' in str(error.value)


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
  """Real files through tfds's own writer and reader; what it does needs no TensorFlow."""

  VERSION = tfds.core.Version('1.0.0')
  FOLDER = ''

  def _info(self):
    features = tfds.features.FeaturesDict(
      {'image': tfds.features.Image(encoding_format='jpeg'), 'label': tfds.features.Text()}
    )
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i, path in enumerate(sorted(pathlib.Path(self.FOLDER).iterdir())):
      yield i, {'image': str(path), 'label': path.name}


@pytest.fixture(scope='module')
def tiny(tmp_path_factory, photographs):
  images, data_dir = tmp_path_factory.mktemp('images'), tmp_path_factory.mktemp('tfds')
  for i in range(5):
    Image.fromarray(photographs[i % 3][: 40 + i]).save(images / f'{i}.jpg')
  TinyPhotos.FOLDER = str(images)
  where = prepare.prepare('tiny_photos', str(data_dir))
  assert where == str(data_dir / 'tiny_photos' / '1.0.0')
  return data_dir


def test_tfds(tiny):
  source = sources.make('tfds:tiny_photos', data_dir=str(tiny))
  assert len(source) == 5
  heights = set()
  for i in range(5):
    image = source[i]
    assert image.shape[1:] == (128, 3) and image.dtype == np.uint8
    heights.add(image.shape[0])
  assert heights == {40, 41, 42, 43, 44}
  # The stored bytes are the files' own.
  want = cv2.imread(f'{TinyPhotos.FOLDER}/0.jpg')[..., ::-1]
  match = next(source[i] for i in range(5) if source[i].shape[0] == 40)
  assert np.array_equal(match, want)
  again = pickle.loads(pickle.dumps(source))
  assert np.array_equal(again[3], source[3])
  assert source.path(3) == 'tfds:tiny_photos/train#3'
  assert len(sources.make('tfds:tiny_photos', 'train[:40%]', data_dir=str(tiny))) == 2


def test_tfds_wrong_split(tiny):
  with pytest.raises(ValueError, match=r"no split 'test': set it to one of train"):
    sources.make('tfds:tiny_photos', 'test', data_dir=str(tiny))


def test_tfds_in_another_format(tiny, tmp_path):
  shutil.copytree(tiny, tmp_path / 'd')
  info = tmp_path / 'd' / 'tiny_photos' / '1.0.0' / 'dataset_info.json'
  info.write_text(json.dumps(json.loads(info.read_text()) | {'fileFormat': 'tfrecord'}))
  with pytest.raises(ValueError, match=r'stored as tfrecord, .* delete that folder or choose'):
    sources.make('tfds:tiny_photos', data_dir=str(tmp_path / 'd'))


def test_prepare_command(tiny, tmp_path, capsys):
  assert command.main(['tiny_photos', '--data_dir', str(tiny)]) == 0
  assert 'tiny_photos' in capsys.readouterr().out
  assert command.main(['tiny_photo', '--data_dir', str(tiny)]) == 1
  assert "no set 'tiny_photo'" in capsys.readouterr().err
  assert command.main(['imagenet2012', '--data_dir', str(tmp_path)]) == 1
  said = capsys.readouterr().err
  assert 'Put them into' in said and 'ILSVRC2012_img_train.tar' in said
