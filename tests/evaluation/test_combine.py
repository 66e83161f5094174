import dataclasses
import json

import numpy as np
import pytest
from report_cases import BINS, PROTOCOL, make

from jaxinpaint.cli import combine as command
from jaxinpaint.evaluation.combine import combine as join
from jaxinpaint.report import files, tables
from jaxinpaint.report.results import SetValue
from jaxinpaint.report.statistics import Statistics


def written(tmp_path, name, predictors, *, commit='abc', **fields):
  results = make(predictors, notes={'weights': f'of {name}'}, **fields)
  return files.write(results, tmp_path / name, measured_on={'commit': commit, 'jax': '1'})


@pytest.fixture
def two(tmp_path):
  a = written(tmp_path, 'a', {'ours': 1.0, 'Telea': 0.0}, baseline='Telea')
  b = written(tmp_path, 'b', {'theirs': 2.0, 'Telea': 0.0}, commit='def')
  return a, b


def test_rows_of_several_reports_in_one_table(two, tmp_path, capsys):
  assert command.main([*map(str, two), '--output', str(tmp_path / 'both')]) == 0
  found = files.load(tmp_path / 'both')
  results = found.results
  assert results.predictors == ('ours', 'theirs', 'Telea') and results.baseline == 'Telea'
  assert len(results.records) == 3 * 2 * 12
  # Paired across reports, on the same images: the common difficulty cancels.
  c = Statistics(results).comparison('theirs', 'ours', BINS[0], PROTOCOL.metrics[0])
  assert c.difference == pytest.approx(1, abs=0.2) and c.verdict == 'better' and c.n == 12
  assert found.environment == {'commit': 'abc / def', 'jax': '1'}
  assert [s['predictors'] for s in results.sources] == [['ours', 'Telea'], ['theirs', 'Telea']]
  assert results.notes == {'a, weights': 'of a', 'b, weights': 'of b'}
  assert [sorted(e.outputs) for e in results.examples] == [['Telea', 'ours', 'theirs']] * 4
  assert 'theirs against Telea, paired by image: better' in capsys.readouterr().out
  assert 'def' in (tmp_path / 'both' / 'report.html').read_text()
  # A joined report may be joined again.
  c = written(tmp_path, 'c', {'third': 3.0})
  again = join([tmp_path / 'both', c]).results
  assert again.predictors == ('ours', 'theirs', 'third', 'Telea') and len(again.sources) == 3


def test_names_that_clash_get_their_folders(two, tmp_path):
  other = written(tmp_path, 'c', {'ours': 0.5, 'Telea': 0.0})
  results = join([two[0], other]).results
  assert results.predictors == ('ours (a)', 'ours (c)', 'Telea')
  differences = np.subtract(
    results.values('ours (a)', BINS[0], 'psnr'), results.values('ours (c)', BINS[0], 'psnr')
  )
  assert differences.mean() == pytest.approx(0.5, abs=0.01)
  # As much of the path as tells folders of one name apart; a baseline follows its new name.
  for run in ('run1', 'run2'):
    (tmp_path / run).mkdir()
    written(tmp_path / run, '5', {'ours': 1.0 if run == 'run1' else 0.2}, baseline='ours')
  results = join([tmp_path / 'run1' / '5', tmp_path / 'run2' / '5']).results
  assert results.predictors == ('ours (run1/5)', 'ours (run2/5)')
  assert results.baseline == 'ours (run1/5)'


def test_reports_of_other_things_are_refused(two, tmp_path):
  a = two[0]
  k = iter(range(100))

  def refused(**fields):
    other = written(tmp_path, f'other{next(k)}', {'theirs': 2.0}, **fields)
    with pytest.raises(files.ReportError) as caught:
      join([a, other])
    assert str(a) in str(caught.value) and str(other) in str(caught.value)
    return str(caught.value)

  foreign = dataclasses.replace(PROTOCOL, id='seed001')
  text = refused(protocol=foreign, mask_sha256='cd' * 32)
  assert "their protocol is 'seed000' and 'seed001'; numbers of different protocols" in text
  assert f"mask set (SHA-256) is '{'ab' * 32}' and '{'cd' * 32}'" in refused(mask_sha256='cd' * 32)
  assert "data set is 'folder:photos/' and 'sample'" in refused(dataset='sample')
  assert 'count of images is 12 and 11' in refused(n=11)
  assert "image size is '24 x 20' and '32 x 20'" in refused(size=(32, 20))
  assert 'seed of the masks is 0 and 1' in refused(seed=1)
  assert "bins is ['10-20', '20-40'] and ['20-40', '10-20']" in refused(bins=BINS[::-1])
  assert 'image 0 at 10-20 % is photo0.jpg' in refused(files='other{}.jpg')
  metrics = (
    dataclasses.replace(PROTOCOL.metrics[0], function='ssim', options={'data_range': 255}),
  )
  assert 'but psnr differ' in refused(
    protocol=dataclasses.replace(PROTOCOL, metrics=metrics + PROTOCOL.metrics[1:])
  )
  assert 'but composite differ' in refused(protocol=dataclasses.replace(PROTOCOL, composite=False))


def test_pictures_that_were_cut_differently_are_refused(two, tmp_path):
  a = two[0]

  def report(name, crop, change=0, **fields):
    protocol = dataclasses.replace(PROTOCOL, crop=crop)
    results = make({'theirs': 2.0}, protocol=protocol, **fields)
    cut = [dataclasses.replace(e, truth=e.truth + np.uint8(change)) for e in results.examples]
    return files.write(dataclasses.replace(results, examples=cut), tmp_path / name, measured_on={})

  with pytest.raises(files.ReportError, match='but crop differ'):
    join([a, report('squashed', 'resize')])
  with pytest.raises(files.ReportError, match='their image 0 is not the same picture'):
    join([a, report('elsewhere', 'center', change=1)])
  # Reports of earlier versions do not say the crop: their pictures do.
  assert 'theirs' in join([a, report('old', '')]).results.predictors
  with pytest.raises(files.ReportError, match='their image 0 is not the same picture'):
    join([a, report('old_squashed', '', change=1)])
  with pytest.raises(files.ReportError, match='does not say how its images were cropped'):
    join([a, report('old_bare', '', examples=0)])


def test_data_sets_of_two_names(two, tmp_path):
  other = written(tmp_path, 'c', {'theirs': 2.0}, dataset='folder:/elsewhere/photos/')
  with pytest.raises(files.ReportError, match='--any_dataset_name'):
    join([two[0], other])
  assert len(join([two[0], other], any_dataset_name=True).results.predictors) == 3


def test_columns_that_one_report_lacks(two, tmp_path):
  fid = dataclasses.replace(PROTOCOL.metrics[2], name='fid', label='FID')
  results = make(
    {'deep': 1.0, 'Telea': 0.0},
    protocol=dataclasses.replace(PROTOCOL, metrics=(*PROTOCOL.metrics, fid)),
    set_values=[SetValue('deep', b, 'fid', 12.5, 12) for b in BINS],
    resources={'deep': {'parameters': 5}},
    kinds={'deep': 'files'},
    not_computed={'lpips': 'no weights'},
  )
  folder = files.write(results, tmp_path / 'deep', measured_on={})
  joined = join([two[0], folder]).results
  assert [m.name for m in joined.set_metrics] == ['fid']
  assert joined.set_value('deep', BINS[0], 'fid').value == 12.5
  assert joined.set_value('ours', BINS[0], 'fid') is None
  assert joined.not_computed == {'lpips': 'no weights (in deep)'}
  assert joined.kind('deep') == 'files' and joined.resources == {'deep': {'parameters': 5}}
  assert '12.50' in tables.terminal_table(joined)


def test_mistakes_end_in_a_sentence(two, tmp_path, capsys):
  def fails(*arguments):
    assert command.main([*map(str, arguments), '--output', str(tmp_path / 'both')]) == 1
    assert not (tmp_path / 'both').exists()
    return capsys.readouterr().err

  a, b = two
  assert 'give the folders of two reports' in fails(a)
  assert 'given twice' in fails(a, a)
  assert 'holds no report' in fails(a, tmp_path / 'nowhere')
  assert "--baseline 'x' must be one of 'ours', 'theirs', 'Telea'" in fails(a, b, '--baseline', 'x')
  document = json.loads((b / 'metrics.json').read_text())
  (b / 'metrics.json').write_text(json.dumps(document | {'schema': 9}))
  assert 'has the schema 9' in fails(a, b)
