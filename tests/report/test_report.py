import dataclasses
import html.parser
import json
import math
import re

import numpy as np
import pytest
from report_cases import BINS, PROTOCOL, make

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import protocols
from jaxinpaint.metrics.protocols import Metric
from jaxinpaint.report import (
  extremes,
  files,
  gallery,
  page,
  published,
  tables,
)
from jaxinpaint.report.results import SetValue

HOSTILE = '<img src=x onerror=alert(1)>"&\'|{{script}}'


class Page(html.parser.HTMLParser):
  """Tags with their attributes, checked for balance; texts."""

  VOID = ('meta', 'img', 'input', 'br')

  def __init__(self, text):
    super().__init__()
    self.tags, self.open, self.texts = [], [], []
    self.feed(text)
    assert not self.open, f'not closed: {self.open}'

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, f'</{tag}> closes another tag'

  def handle_data(self, data):
    self.texts.append(data)

  def of(self, tag, **attributes):
    wanted = attributes.items()
    return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted)]


def rich():
  """Results with something of everything that a report shows."""
  fid = Metric('fid', 'FID', 'fid', {}, 'lower', 2, 'FID')
  lpips = Metric('lpips', 'LPIPS', 'lpips', {}, 'lower', 3)
  results = make(
    {'ours': 1.0, HOSTILE: 0.0, 'Telea': -2.0},
    n=14,
    protocol=dataclasses.replace(PROTOCOL, metrics=(*PROTOCOL.metrics, fid, lpips)),
    baseline=HOSTILE,
    skipped=[(f'{HOSTILE}.jpg', 'truncated <b>')],
    notes={'weights': HOSTILE},
    not_computed={'lpips': f'weights are missing: get them {HOSTILE}'},
    resources={'ours': {'parameters': 1_234_567, 'seconds': math.nan}, 'Telea': {'seconds': 0.5}},
  )
  results.set_values = [
    SetValue(n, b, 'fid', 10.5 + k, 14) for k, n in enumerate(('ours', 'Telea')) for b in BINS
  ]
  records = {(r.predictor, r.bin, r.index): r for r in results.records}
  records['ours', BINS[0], 3].values['psnr'] = math.inf
  records['ours', BINS[0], 4].values['psnr'] = math.nan
  template = results.examples[0]
  extremes.collect(
    results,
    lambda name, b, indices: [
      dataclasses.replace(template, bin=b, index=i, outputs={name: np.full_like(template.truth, i)})
      for i in indices
    ],
  )
  return results


ROWS = published.published_rows('seed000', 'Places2')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  results = rich()
  folder = tmp_path_factory.mktemp('report') / 'r'
  files.write(results, folder, ROWS, measured_on={'commit': 'abc', 'devices': '1 x <cpu>'})
  return results, folder


def test_metrics_json(written):
  results, folder = written
  found = json.loads((folder / 'metrics.json').read_text())
  assert found['schema'] == 2 and found['baseline'] == HOSTILE
  row = next(r for r in found['results'] if (r['predictor'], r['bin']) == ('ours', '10-20'))
  assert row['metric'] == 'psnr' and row['low'] < row['mean'] < row['high']
  assert (row['n'], row['infinite'], row['undefined']) == (12, 1, 1)
  assert len(found['results']) == 3 * 2 * 6 and len(found['comparisons']) == 2 * 2 * 6
  c = found['comparisons'][0]
  assert (c['predictor'], c['baseline'], c['metric']) == ('ours', HOSTILE, 'psnr')
  assert c['excludes_zero'] and c['verdict'] == 'better' and (c['n'], c['left_out']) == (12, 2)
  assert c['better'] == 1 and c['low'] < c['difference'] < c['high']
  assert found['set_values'][0] == {
    'predictor': 'ours', 'bin': '10-20', 'metric': 'fid', 'value': 10.5, 'n': 14
  }  # fmt: skip
  assert found['not_computed'] == results.not_computed
  assert found['resources']['ours'] == {'parameters': 1_234_567, 'seconds': None}
  assert found['statistics']['resamples'] == 2000 and found['environment']['commit'] == 'abc'


def same(a, b):
  """Whether two results say the same, numbers as per_image.csv rounds them."""
  for f in dataclasses.fields(a):
    if f.name not in ('records', 'examples', 'cases', 'kinds', 'resources'):
      assert getattr(a, f.name) == getattr(b, f.name), f.name
  for x, y in zip(a.records, b.records, strict=True):
    assert dataclasses.replace(x, values={}, hole_share=0) == dataclasses.replace(
      y, values={}, hole_share=0
    )
    assert x.hole_share == pytest.approx(y.hole_share, abs=1e-6)
    assert x.values == pytest.approx(y.values, rel=1e-7, nan_ok=True)


def test_a_report_is_read_back(written):
  results, folder = written
  found = files.load(folder)
  same(found.results, results)
  assert found.published == ROWS and found.environment['commit'] == 'abc'
  assert found.results.kind('Telea') == 'fill' and found.results.kind('ours') == 'system'
  for kept, now in (
    (results.examples, found.results.examples),
    (results.cases, found.results.cases),
  ):
    assert len(kept) == len(now) > 0
    for a, b in zip(kept, now, strict=True):
      assert (a.bin, a.index, list(a.outputs)) == (b.bin, b.index, list(b.outputs))
      np.testing.assert_array_equal(a.mask, b.mask)
      for name in a.outputs:
        np.testing.assert_array_equal(a.outputs[name], b.outputs[name])
      if kept is results.examples:
        np.testing.assert_array_equal(a.truth, b.truth)
  # The pictures may be removed to save space.
  (folder / 'pictures.npz').rename(folder / 'away')
  assert files.load(folder).results.examples == []
  (folder / 'away').rename(folder / 'pictures.npz')


def test_a_report_of_the_first_schema_is_read(tmp_path):
  results = make({'ours': 0.0, 'Telea': -1.0}, examples=0)
  folder = files.write(results, tmp_path / 'r', measured_on={})
  document = json.loads((folder / 'metrics.json').read_text())
  first = {
    'schema', 'protocol', 'deviations', 'dataset', 'masks', 'environment', 'notes', 'results',
    'published',
  }  # fmt: skip
  document = {k: v for k, v in document.items() if k in first} | {'schema': 1}
  for row in document['results']:
    del row['low'], row['high']
  for metric in document['protocol']['metrics']:
    metric.pop('of')
  (folder / 'metrics.json').write_text(json.dumps(document))
  found = files.load(folder).results
  same(found, results)
  assert found.kind('Telea') == 'fill'


def test_what_is_no_report_is_refused(written, tmp_path):
  _, folder = written
  with pytest.raises(files.ReportError, match='holds no report'):
    files.load(tmp_path)
  document = json.loads((folder / 'metrics.json').read_text())
  lines = (folder / 'per_image.csv').read_text()

  def broken(text, csv=lines):
    (tmp_path / 'metrics.json').write_text(text)
    (tmp_path / 'per_image.csv').write_text(csv)
    with pytest.raises(files.ReportError) as caught:
      files.load(tmp_path)
    return str(caught.value)

  assert 'is damaged' in broken('{"schema": 2')
  assert 'has the schema 3, this version reads 1 to 2' in broken(
    json.dumps(document | {'schema': 3})
  )
  assert 'has the schema None' in broken('[]')
  del document['dataset']['count'], document['masks']
  assert 'not a whole report' in broken(json.dumps(document))
  document = json.loads((folder / 'metrics.json').read_text())
  assert 'line 3 cannot be read' in broken(
    json.dumps(document), '\n'.join([*lines.splitlines()[:2], 'seed000,ours,10-20,x,f,0.1'])
  )
  (tmp_path / 'per_image.csv').unlink()
  with pytest.raises(files.ReportError, match=r'per_image\.csv cannot be read'):
    files.load(tmp_path)


def test_the_page_is_one_sound_file(written):
  results, folder = written
  text = (folder / 'report.html').read_text()
  found = Page(text)
  policy = found.of('meta', **{'http-equiv': 'Content-Security-Policy'})[0]['content']
  assert "default-src 'none'" in policy and 'http:' not in policy and 'https:' not in policy
  sources = [a[k] for _, a in found.tags for k in ('src', 'href') if k in a]
  assert sources and all(s.startswith(('data:image/', '#')) for s in sources)
  assert not found.of('link') and len(found.of('script')) == 1
  for image in found.of('img'):
    assert image.get('alt') or 'data-under' in image or 'data-over' in image
  ids = [a['id'] for _, a in found.tags if 'id' in a]
  assert len(ids) == len(set(ids))
  assert {a['href'][1:] for a in found.of('a')} <= set(ids)
  said = ' '.join(found.texts)
  for words in (
    'seed000', 'ab' * 32, '1 x <cpu>', '14 images instead of 500', 'truncated <b>',
    'get them', 'Not computed', '1,234,567', 'published, other images and masks: Places2',
    'Paired difference from', results.skipped[0][0],
  ):  # fmt: skip
    assert words in said, words
  assert '∞' not in said and 'nan' not in said.split()


def test_nothing_from_outside_becomes_part_of_the_page(written):
  _, folder = written
  text = (folder / 'report.html').read_text()
  assert '<img src=x' not in text and 'truncated <b>' not in text
  assert not Page(text).of('img', src='x')
  assert text.count("'use strict'") == 1, 'a mark of the template in a name was filled in'
  assert all('onerror' not in a for _, a in Page(text).tags)


def test_best_values_and_published_rows_on_the_page(written):
  _, folder = written
  text = (folder / 'report.html').read_text()
  table = text[text.index('<table class="sortable">') :]
  ours, hostile, telea = re.findall(r'<tr>.*?</tr>', table[table.index('<tbody>') :], re.S)[:3]
  assert 'class="best"' in ours and 'class="best"' not in hostile + telea
  assert 'best mean' in ours and '95 % interval [' in ours
  assert 'one number of 14 images together; it has no interval' in ours
  assert '1 of FID' not in ours and '2 of PSNR' in ours
  rows = re.search(r'<tbody class="published">(.*?)</tbody>', table, re.S).group(1)
  assert 'EdgeConnect <small>published</small>' in rows and '29.717' in rows
  assert '23.251' not in rows, 'a row of another bin'


def test_a_page_copes_without_pictures(written):
  results, _ = written
  bare = dataclasses.replace(results, examples=[], cases=[], resources={}, baseline='')
  found = Page(page.page(bare))
  assert not found.of('img') and found.of('section', id='cases')
  assert 'picture not kept' in ' '.join(found.texts)
  assert not found.of('section', id='resources') and not found.of('section', id='pictures')


def test_pictures_stay_within_the_budget(written):
  results, _ = written
  whole = page.page(results)
  size = lambda text: sum(len(s) for s in re.findall(r'data:image/[^"]+', text))
  small = page.page(results, budget=size(whole) // 3)
  assert 0 < size(small) <= size(whole) // 3
  assert 'pictures were left out' in small and 'pictures were left out' not in whole
  pictures = gallery.Album(10_000)
  noise = np.random.default_rng(0).integers(0, 256, (2, 200, 200, 3), np.uint8)
  for k in range(2):
    pictures.ask(k, noise[k])
  pictures.close()
  assert pictures.get(0) is None and 'JPEG' not in pictures.note() and pictures.left_out == 2
  pictures = gallery.Album()
  pictures.ask('x', noise[0])
  pictures.ask('y', noise[1, :50, :50] / 255)
  pictures.close()
  assert pictures.get('x').startswith('data:image/jpeg') and 'JPEG of quality 92' in pictures.note()
  assert pictures.get('y').startswith('data:image/png')


def test_markdown_and_terminal(written):
  results, folder = written
  text = (folder / 'report.md').read_text()
  s = page.Statistics(results).summary('ours', BINS[1], 'psnr')
  assert f'**{s.mean:.3f}** [{s.low:.3f}, {s.high:.3f}]' in text
  assert '*EdgeConnect* (published)' in text and '*23.251*' in text
  assert '12 (without 2 of PSNR)' not in text and '14 (without 2 of PSNR)' in text
  assert '## Not computed' in text and '## Resources' in text and '| 1,234,567 |' in text
  assert 'images are taken as independent' in text
  # A name with a bar does not make a column of its own.
  lines = [line for line in text.splitlines() if line.startswith('| ours')]
  heads = [line for line in text.splitlines() if line.startswith('| method')]
  assert lines[0].count('|') == heads[0].count('|')
  assert r'onerror=alert(1)\>"&' in text and '| <img' not in text
  plain = tables.terminal_table(results, ROWS, colour=False)
  assert '\x1b' not in plain and '* published, other images and masks (Places2)' in plain
  costs = [
    dict(r, mask='', percent='', metric='train_hours', value='77')
    for r in ROWS
    if r['value'] == '1.17'
  ]
  assert 'train hours' in page.page(results, costs) and '>77<' in page.page(results, costs)
  assert '| *EdgeConnect* (published) | *77* |' in tables.markdown(results, costs, {}, {})
  assert '▲' in plain and '\nLPIPS not computed: weights are missing' in plain
  coloured = tables.terminal_table(results, ROWS, colour=True)
  assert '\x1b[3;36m* EdgeConnect' in coloured
  assert re.sub('\x1b\\[[0-9;]*m', '', coloured) == plain


def test_metrics_not_computed_are_named_once():
  results = make({'ours': 0.0}, not_computed={'psnr': 'PSNR not computed: no ruler', 'ssim': 'why'})
  assert tables.not_computed(results) == ['PSNR not computed: no ruler', 'SSIM not computed: why']


def test_verdicts_against_a_baseline():
  found = tables.verdicts(make({'ours': 1.0, 'Telea': -2.0, 'same': -2.0}, n=30, baseline='Telea'))
  assert found[0] == 'ours beats every classical fill in all 12 means.'
  assert 'ours against Telea, paired by image: better in all 12 comparisons.' in found
  assert 'same against Telea, paired by image: ' in found[-2] and 'undecided' in found[-2]
  assert found[-1] == 'Of 24 comparisons about 1 would be decided by chance if nothing differed.'
  few = tables.verdicts(make({'ours': 1.0, 'Telea': -2.0}, n=5, baseline='Telea'))
  assert few[-1].endswith('With 5 images the intervals are too narrow.')
  assert len(tables.verdicts(make({'ours': 1.0, 'Telea': -2.0}))) == 1
  assert tables.verdicts(make({'ours': 1.0, 'Telea': -2.0}, baseline='gone')) == found[:1]


def test_published_rows_find_their_bin():
  row = dict(protocol='p', table='1', method='M', dataset='D', mask='center', percent='10',
             metric='PSNR', value='30')  # fmt: skip
  centre, random = Bin(0.09, 0.11, 'center', 'center 10'), Bin(0.09, 0.11, 'strokes', 'random 10')
  assert published.belongs(row, centre) and not published.belongs(row, random)
  assert published.belongs(row | dict(percent='10-20'), Bin(0.1, 0.2))
  assert published.belongs(row | dict(mask='square', percent=''), Bin(0.2, 0.3, name='square'))
  assert not published.belongs(row | dict(percent=''), Bin(0.1, 0.2))
  assert published.of_bin([row, row | dict(metric='FID')], centre, PROTOCOL.metrics) == [
    ('M', {'psnr': '30'})
  ]
  assert published.elsewhere([row], [random], PROTOCOL.metrics) == [row]
  assert not published.elsewhere([row], [centre], PROTOCOL.metrics)
  # What a method costs holds for all masks; a quality whose masks are not known is no cost.
  cost = row | dict(mask='', percent='', metric='train_hours', value='12')
  unknown = row | dict(mask='', percent='')
  assert published.elsewhere([cost, unknown], [centre], PROTOCOL.metrics) == [unknown]
  assert published.resources([cost, unknown], PROTOCOL.metrics) == [('M', {'train_hours': '12'})]


def test_best_and_worst_cases():
  results = make({'ours': 0.0, 'Telea': -1.0}, n=9)
  b = BINS[0]
  values = np.array(results.values('ours', b, 'hole_psnr'))
  found = extremes.chosen(results, 'ours', b)
  assert [r.index for r in found['best']] == np.argsort(-values)[:3].tolist()
  assert [r.index for r in found['worst']] == np.argsort(values)[:3].tolist()
  results.case_metric = 'l1_percent'
  assert extremes.chosen(results, 'ours', b) == found, 'less is better here'
  assert set(extremes.wanted(results)) == {('ours', x) for x in BINS}, 'of fills nobody asks'
  few = extremes.chosen(make({'ours': 0.0}, n=3), 'ours', b)
  assert len(few['best']) == len(few['worst']) == 1
  assert few['best'][0] != few['worst'][0]


def test_numbers_as_people_read_them():
  metric = PROTOCOL.metrics[0]
  assert tables.number(-1.23456, metric, True) == '−1.235'
  assert tables.number(1.2, metric, True) == '+1.200'
  assert tables.number(math.inf, metric) == '∞' and tables.number(math.nan, metric) == '–'
  assert tables.resource(0.0123456) == '0.01235' and tables.resource(None) == '–'
  assert tables.plain('a|b*c') == r'a\|b\*c'


def test_bins_with_names_have_curves_of_their_own():
  bins = (Bin(0.09, 0.11, 'center', 'center 10'), Bin(0.09, 0.11, 'strokes', 'random 10'))
  results = make({'ours': 0.0, 'other': 1.0}, examples=1)
  swap = dict(zip(BINS, bins, strict=True))
  change = lambda items: [dataclasses.replace(x, bin=swap[x.bin]) for x in items]
  results = dataclasses.replace(
    results,
    bins=bins,
    protocol=dataclasses.replace(PROTOCOL, bins=bins),
    records=change(results.records),
    examples=change(results.examples),
  )
  text = page.page(results)
  found = Page(text)
  curves = found.of('svg', **{'class': 'curve'})
  assert len(curves) == 2 * 2 * len(PROTOCOL.metrics)
  assert 'NaN' not in text[: text.index('<script>')] and 'nan' not in curves[0]['aria-label']
  assert 'Center 10' in found.texts and 'hole center 10 %' not in text
  assert protocols.get('seed000').bins[0].label == '0-20'
