"""Files and folders that are there whole or not at all."""

import errno
import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from jaxinpaint.runtime import atomic, digest


@pytest.mark.parametrize(
  'content', ['grüße\n', 'grüße\n'.encode(), lambda file: file.write('grüße\n'.encode())]
)
def test_text_bytes_and_a_function(tmp_path, content):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  atomic.write(path, content)
  assert path.read_bytes() == 'grüße\n'.encode()
  assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_no_text_can_be_written(tmp_path):
  atomic.write(tmp_path / 'a', os.fsdecode(b'caf\xe9 ') + 'grün')
  assert (tmp_path / 'a').read_text(encoding='utf-8') == 'caf\\udce9 grün'


def test_new_files_have_the_permissions_of_other_files(tmp_path):
  (tmp_path / 'usual').write_text('')
  (tmp_path / 'folder').mkdir()
  atomic.write(tmp_path / 'new', '')
  with atomic.folder(tmp_path / 'new_folder'):
    pass
  mode = lambda name: stat.S_IMODE((tmp_path / name).stat().st_mode)
  assert mode('new') == mode('usual') and mode('new_folder') == mode('folder')


def test_an_error_leaves_the_old_file(tmp_path):
  def fail(file):
    file.write(b'half')
    raise KeyError

  path = tmp_path / 'a.txt'
  path.write_text('old')
  with pytest.raises(KeyError):
    atomic.write(path, fail)
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
  missing = tmp_path / 'nowhere' / 'a.txt'
  with pytest.raises(FileNotFoundError) as error:
    atomic.write(missing, 'x')
  assert error.value.filename == str(missing)  # not the temporary one

  def full(file):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with pytest.raises(OSError, match='No space') as error:
    atomic.write(path, full)
  assert error.value.filename == str(path)

  def other(file):
    open(tmp_path / 'source').close()

  with pytest.raises(FileNotFoundError) as error:
    atomic.write(path, other)
  assert error.value.filename == str(tmp_path / 'source')


def test_a_kill_leaves_the_old_file(tmp_path):
  code = (
    'import os, signal, sys\n'
    'from jaxinpaint.runtime import atomic\n'
    'def half(file):\n'
    '  file.write(b"half")\n'
    '  file.flush()\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
    'atomic.write(sys.argv[1], half)\n'
  )
  path = tmp_path / 'a.txt'
  path.write_text('old')
  root = os.path.dirname(os.path.dirname(os.path.dirname(atomic.__file__)))
  done = subprocess.run([sys.executable, '-c', code, str(path)], cwd=root)
  assert done.returncode == -signal.SIGKILL
  assert path.read_text() == 'old'


def test_a_folder_is_there_when_it_is_whole(tmp_path):
  path = tmp_path / 'f'
  with atomic.folder(path) as new:
    (new / 'a').write_text('a')
    assert not path.exists() and new.parent == tmp_path
  assert (path / 'a').read_text() == 'a' and list(tmp_path.iterdir()) == [path]
  with pytest.raises(OSError):  # the name is taken
    with atomic.folder(path) as new:
      (new / 'b').write_text('b')
  with pytest.raises(KeyError):
    with atomic.folder(tmp_path / 'g') as new:
      raise KeyError
  assert [p.name for p in path.iterdir()] == ['a'] and list(tmp_path.iterdir()) == [path]


def test_of_what_failed_no_empty_folder_is_left(tmp_path):
  (tmp_path / 'old').mkdir()
  with pytest.raises(KeyError):
    with atomic.no_empty_folders(tmp_path / 'old', tmp_path / 'a/b', tmp_path / 'c', 'not made'):
      (tmp_path / 'a' / 'b').mkdir(parents=True)
      (tmp_path / 'c').mkdir()
      (tmp_path / 'c' / 'file').touch()
      raise KeyError
  assert {p.name for p in tmp_path.iterdir()} == {'old', 'c'}
  with atomic.no_empty_folders(tmp_path / 'a'):
    (tmp_path / 'a').mkdir()
  assert (tmp_path / 'a').is_dir()


def test_digests(tmp_path):
  abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'  # FIPS 180-2, B.1
  (tmp_path / 'abc').write_bytes(b'abc')
  assert digest.of_file(tmp_path / 'abc') == abc
  assert digest.of(b'a', b'bc') == abc
  assert digest.of(np.array([[97, 99], [98, 0]], np.uint8)[:, 0], b'c') == abc
