"""The line that says what is being done; on a terminal only, and gone at the end."""

import io
import sys
import threading

import pytest

from jaxinpaint.runtime import activity


class Terminal(io.StringIO):
  """A terminal that says when something was written."""

  def __init__(self):
    super().__init__()
    self.written = threading.Event()

  def isatty(self):
    return True

  def write(self, text):
    super().write(text)
    self.written.set()


def test_long_work_is_shown_and_erased(monkeypatch):
  monkeypatch.setattr(activity, '_AFTER', 0.001)
  monkeypatch.setattr(sys, 'stderr', terminal := Terminal())
  with activity.shown('Reading the map'):
    assert terminal.written.wait(60)
  assert '\r\033[KReading the map ... 0 s\r' in terminal.getvalue()
  assert terminal.getvalue().endswith('\r\033[K')


def test_the_line_is_erased_after_an_error(monkeypatch):
  monkeypatch.setattr(activity, '_AFTER', 0.001)
  monkeypatch.setattr(sys, 'stderr', terminal := Terminal())
  with pytest.raises(KeyError), activity.shown('Reading the map'):
    terminal.written.wait(60)
    raise KeyError
  assert terminal.getvalue().endswith('\r\033[K')
  before = threading.active_count()
  with activity.shown('Reading another'):
    assert threading.active_count() == before + 1
  assert threading.active_count() == before


def test_a_log_file_gets_nothing(monkeypatch):
  monkeypatch.setattr(activity, '_AFTER', 0.0)
  monkeypatch.setattr(sys, 'stderr', log := io.StringIO())
  with activity.shown('Reading the map'):
    pass
  assert log.getvalue() == ''
