"""Runs as one file: all is in it, nothing from outside, nothing that breaks out of it."""

import base64
import io
import json
import re

import numpy as np
import pytest
import workdirs
from PIL import Image

from jaxinpaint.watching import document
from jaxinpaint.watching.runs import Runs


def data_of(html):
  """The runs in a saved page."""
  (text,) = re.findall(r'<script type="application/json" id="saved">(.*?)</script>', html, re.S)
  return json.loads(text)


def noise(seed, size=200):
  out = io.BytesIO()
  pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
  Image.fromarray(pixels).save(out, 'PNG')
  return out.getvalue()


def test_a_file_has_numbers_and_pictures(tmp_path):
  folder = workdirs.workdir(tmp_path / 'run')
  html = document.save(Runs([folder]), 1 << 20)
  data = data_of(html)
  assert data['runs'][0]['series']['generator/total']['steps'] == [1, 2, 3]
  kind, _, picture = data['pictures']['0']['0'].partition(',')
  assert kind == 'data:image/png;base64'
  shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
  assert (shown == 7).all() and data['left_out_pictures'] == 0
  assert not re.search(r'(src|href)="(?!data:|#)', html) and 'url(' not in html.split('<script')[0]
  script = html.rpartition('<script type="module">')[2]
  assert not re.search(r'^(import|export) ', script, re.M), 'a file cannot import others'


def test_names_do_not_break_out_of_the_page(tmp_path):
  folder = workdirs.workdir(tmp_path / '<script>alert(1)<')
  workdirs.metrics(folder, [4], **{'</script><b>': 1.0})
  html = document.save(Runs([folder]), 1 << 20)
  assert '<b>' not in html and 'alert(1)<' not in html
  assert '</script><b>' in data_of(html)['runs'][0]['series']


def test_pictures_keep_to_their_budget_evenly(tmp_path):
  folder = workdirs.workdir(tmp_path / 'run')
  for step in range(0, 32):
    workdirs.sample(folder, step, noise(step))
  budget = 400_000
  html = document.save(Runs([folder]), budget)
  data = data_of(html)
  kept = sorted(map(int, data['pictures']['0']))
  assert sum(map(len, data['pictures']['0'].values())) <= budget
  assert 4 < len(kept) < 32 and data['left_out_pictures'] == 32 - len(kept)
  assert [s['step'] for s in data['runs'][0]['samples']] == kept and data['quality']
  assert kept[0] == 0 and kept[-1] == 31 and max(np.diff(kept)) <= 8


def test_steps_in_an_order_that_can_be_cut_off():
  spread = list(document._spread(list(range(0, 1000, 10))))
  assert sorted(spread) == list(range(0, 1000, 10)) and spread[:2] == [990, 0]
  assert len(list(document._spread(list(range(5000))))) == document._MOST_PICTURES
  assert list(document._spread([])) == [] and list(document._spread([3])) == [3]


def test_what_is_no_run_is_not_saved(tmp_path):
  with pytest.raises(ValueError, match='holds no training run'):
    document.save(Runs([tmp_path]), 0)
