import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxinpaint.cli import experiments
from jaxinpaint.cli import study as command
from jaxinpaint.configs import survey_study
from jaxinpaint.cost import resources
from jaxinpaint.data import pipeline, sources
from jaxinpaint.evaluation.spec import EvaluationError
from jaxinpaint.metrics import protocols
from jaxinpaint.runtime import locks
from jaxinpaint.study import (
  document as study_document,
)
from jaxinpaint.study import (
  images as study_images,
)
from jaxinpaint.study import (
  study,
)

SIDE = 64


@dataclasses.dataclass
class Named:
  names: list

  def __len__(self):
    return len(self.names)

  def __getitem__(self, i):
    return np.zeros((8, 8, 3), np.uint8)

  def path(self, i):
    return self.names[i]


def test_the_draw_depends_on_names_and_seed_alone():
  names = [f'/faces/{i:05d}.jpg' for i in range(500)]
  shuffled = [names[i] for i in np.random.default_rng(1).permutation(500)]
  elsewhere = [n.replace('/faces/', '/other/disk/') for n in names]
  drawn = study_images.names_of(study_images.draw(Named(names), 40, 0))
  assert len(set(drawn)) == 40 and drawn == sorted(drawn)
  assert study_images.names_of(study_images.draw(Named(shuffled), 40, 0)) == drawn
  assert study_images.names_of(study_images.draw(Named(elsewhere), 40, 0)) == drawn
  assert study_images.names_of(study_images.draw(Named(names), 40, 1)) != drawn
  # A smaller study is of a part of the images.
  assert set(study_images.names_of(study_images.draw(Named(names), 10, 0))) < set(drawn)
  # Drawn, not the first ones.
  assert max(drawn) > '00400'


def test_rows_of_one_data_set_and_of_all():
  given = ['a=x', 'b@celeba=y', 'b@places2=z@100']
  assert study.split_rows(given, ['celeba', 'places2']) == {
    'celeba': {'a': 'x', 'b': 'y'},
    'places2': {'a': 'x', 'b': 'z@100'},
  }
  assert study.resource_name(given, 'b', 'celeba') == 'b@celeba'
  assert study.resource_name(given, 'a', 'celeba') == 'a'
  with pytest.raises(ValueError, match=r"'imagenet' is none of the data sets celeba, places2"):
    study.split_rows(['a@imagenet=x'], ['celeba', 'places2'])
  with pytest.raises(ValueError, match='two rows of this name are given for celeba'):
    study.split_rows(['a=x', 'a@celeba=y'], ['celeba', 'places2'])


# Section 4.3 of the survey, in its own words and tables.
CLAIMS = {
  'Context-Encoder class': ({'CE': 8, 'GMCNN': 8}, 16),
  'U-Net class': ({'DFNet': 29, 'Shift-Net': 3, 'PEN-Net': 0}, 32),
  'CGAN class': ({'Pluralistic': 29, 'PIX2PIX': 3}, 32),  # 90.6 %
  'DCGAN class on CelebA': ({'EdgeConnect': 16, 'GL': 0}, 16),
  'DCGAN class on Places2': ({'GL': 16, 'EdgeConnect': 0}, 16),
  'StackGAN class': ({'GConv': 25, 'CSA': 8}, 32),  # "about 75 %"; one cell is a tie
  'All methods, CelebA, centre holes': ({'CE': 5, 'DFNet': 2, 'GConv': 2}, 8),
  'All methods, CelebA, random holes': ({'DFNet': 4, 'EdgeConnect': 4}, 8),
  'All methods, Places2, centre holes': ({'GL': 8}, 8),
  'All methods, Places2, random holes': ({'GL': 8}, 8),
}


# Section 4.3.6: the winners of each set.
LEAST = {
  'Fastest, CelebA': 'PIX2PIX (0.0210 s)',
  'Fastest, Places2': 'PIX2PIX (0.0210 s)',
  'Shortest training, CelebA': 'CSA (42.2 h)',
  'Shortest training, Places2': 'CE (133 h)',
  'Least device memory, CelebA': 'Shift-Net (1.43 GB)',
  'Least device memory, Places2': 'Shift-Net (1.67 GB)',
  'Least host memory, CelebA': 'CE and GMCNN (1.52 GB)',
  'Least host memory, Places2': 'CE (1.56 GB)',
}


def document_of(config, rows=(), cells=(), measured=None, given=('celeba', 'places2')):
  return study_document.make(
    config=config,
    protocol=protocols.get(config.protocol),
    datasets={d: dict(about(d)) if d in given else None for d in config.datasets},
    rows=rows,
    fills=[],
    cells=cells,
    measured=measured,
    environment={},
    size=256,
  )


def about(d):
  return dict(
    label=d, source=f'folder:{d}', of=9, count=3, draw_seed=0, names=[], names_sha256='', reports={}
  )


def test_what_the_survey_concludes_is_what_its_tables_count():
  document = document_of(survey_study.get_config())
  found = {f['title']: f for f in document['findings']}
  for title, (counts, total) in CLAIMS.items():
    got = {m: n for m, n in found[title]['published'].items() if n or m in counts}
    assert got == counts, title
    assert f'of {total} cells' in found[title]['sentence']
    assert found[title]['measured'] is None and 'Not checked here' in found[title]['sentence']
  for title, said in LEAST.items():
    assert f'{title}: published, {said}.' in found[title]['sentence']


def row(name, method, d, system='x'):
  return dict(
    name=name, system=system, method=method, size=256, origin='somewhere', dataset=d, resources=name
  )


def cell(name, d, holes, percent, metric, of, mean):
  return dict(
    row=name, dataset=d, holes=holes, percent=percent, masks=holes, metric=metric, of=of, mean=mean,
    standard_error=None, n=3, infinite=0, size=256,
  )  # fmt: skip


def test_findings_are_checked_only_where_all_their_rows_are_there():
  values = {'ec': {'composite': 3.0, 'raw': 1.0}, 'gl': {'composite': 2.0, 'raw': 2.0}}
  levels = {'center': (10, 15, 20, 25), 'random': (10, 20, 30, 40)}
  rows = [row('ec', 'EdgeConnect', 'celeba'), row('gl', 'GL', 'celeba')]
  cells = [
    cell(name, 'celeba', holes, p, metric, of, mean)
    for name, found in values.items()
    for of, mean in found.items()
    for holes, percents in levels.items()
    for p in percents
    for metric in ('psnr', 'ssim', 'ssim_global')
  ]
  document = document_of(survey_study.get_config(), rows, cells)
  found = {f['title']: f for f in document['findings']}
  faces = found['DCGAN class on CelebA']
  # The global SSIM is no number of the survey's: 4 levels x 2 kinds x 2 metrics.
  assert faces['measured'] == {
    'composite': {'EdgeConnect': 16, 'GL': 0},
    'raw': {'GL': 16, 'EdgeConnect': 0},
  }
  assert 'composite outputs, best EdgeConnect 16 of 16 cells: the same' in faces['sentence']
  assert 'raw outputs, best GL 16 of 16 cells: another winner' in faces['sentence']
  assert found['DCGAN class on Places2']['missing'] == ['EdgeConnect, GL on Places2']
  assert all(f['measured'] is None for t, f in found.items() if t != 'DCGAN class on CelebA')


def test_gl_of_the_survey_is_the_tensorflow_code(caplog):
  config = survey_study.get_config()
  loaded = lambda variant: ('glcic', 64, None, 'somewhere', ConfigDict(dict(variant=variant)))
  assert study._row('mine', 'a', loaded('tf'), config).method == 'GL' and not caplog.text
  assert study._row('mine', 'a', loaded('pytorch'), config).method == ''
  assert "model.variant='pytorch', and the survey's GL has model.variant='tf'" in caplog.text
  with pytest.raises(ValueError, match='give weights of GL, or call the row otherwise'):
    study._row('GL', 'a', loaded('pytorch'), config)


def test_ties_count_for_each():
  assert study_document.wins([{'a': 1.0, 'b': 1.0}, {'a': 0.5, 'b': 0.7}]) == ({'b': 2, 'a': 1}, 2)


def test_resources_stand_in_their_table_beside_the_published():
  config = survey_study.get_config()
  rows = [row('pix', 'PIX2PIX', 'celeba'), row('mine', '', 'celeba')]
  measured = resources.Measured(
    {'pix': {'seconds_per_image': 0.5, 'parameters': 54_413_955.0}, 'mine': {'host_gb': 1.5}},
    {'mine': {'training': 'no run'}},
    {},
  )
  text = study_document.markdown(document_of(config, rows, measured=measured))
  table = text[text.index('## Table 9') : text.index('## Table 10')].splitlines()
  cells = {line.split('|')[1].strip(): [c.strip() for c in line.split('|')[2:-1]] for line in table
           if line.startswith('|')}  # fmt: skip
  heads = cells['method']
  at = lambda name, start: cells[name][next(i for i, h in enumerate(heads) if h.startswith(start))]
  assert at('pix', 'seconds per image (s)') == '0.500' and at('pix', 'parameters') == '54.41 M'
  assert at('*PIX2PIX*', 'seconds per image (s)') == '*0.021 / 0.021*'
  assert at('*PIX2PIX*', 'training hours, extrapolated') == '*229.2 / 466.7*'
  assert at('*Pluralistic*', 'device memory (GB)') == '*6.20 / 6.25*'
  assert at('mine', 'host memory (GB)') == '1.50' and at('Pluralistic', '') == 'not given'
  assert 'mine, training: not measured: no run' in text


@pytest.fixture(scope='module')
def folder(tmp_path_factory, photographs):
  path = tmp_path_factory.mktemp('faces')
  for i, image in enumerate(photographs):
    Image.fromarray(image).resize((178, 218)).save(path / f'{i}.png')
  return path


@pytest.fixture(scope='module')
def weights(tmp_path_factory, narrow_glcic):
  path = tmp_path_factory.mktemp('weights') / 'gl.safetensors'
  narrow_glcic(path, 96)
  return path


def request(folder, output, **changes):
  config = survey_study.get_config()
  config.count, config.fills = 2, ('mean',)
  fields = dict(
    config=config, rows=[], data={'celeba': f'folder:{folder}'}, output=output, size=SIDE
  )
  return study.Request(**(fields | changes))


def test_full_size_measures_the_published_experiment(folder, weights, tmp_path, monkeypatch):
  rows = [f'gl@celeba={weights}', f'gl@places2={weights}', f'theirs={folder}']
  asked = request(folder, tmp_path, rows=rows, resources={}, full_size=experiments.named)
  measured = []
  sizes = []

  def measure(paths, fills, *, kept, size):
    measured.append(paths)
    sizes.append(size)

  opened = []
  monkeypatch.setattr(study.resources, 'measure', measure)
  monkeypatch.setattr(
    study.resources, 'open_kept', lambda file, *, resume: opened.append((file, resume))
  )
  study.measure_resources(asked)
  (paths,) = measured
  assert paths['gl@celeba'].data.masks == experiments.named('celeba_glcic_tf').data.masks
  assert paths['gl@places2'].data.source.startswith('tfds:places365')
  assert paths['theirs'] == str(folder), 'no system: measured as it is'
  study.measure_resources(dataclasses.replace(asked, full_size=None))
  assert measured[1]['gl@celeba'] == str(weights)
  assert sizes == [asked.config.size, SIDE], 'published networks at the published side'
  study.measure_resources(dataclasses.replace(asked, resume=False))
  assert opened == [(tmp_path / 'costs.json', resume) for resume in (True, True, False)]


def test_every_full_size_config_is_of_its_system():
  config = survey_study.get_config()
  for by_system in config.full_size.to_dict().values():
    assert set(by_system) == set(config.methods.to_dict())
    for system, name in by_system.items():
      assert experiments.named(name).system == system


@pytest.fixture(scope='module')
def made(folder, weights, tmp_path_factory):
  output = tmp_path_factory.mktemp('study') / 'out'
  asked = request(folder, output, rows=[f'glcic={weights}'])
  return study.prepare(asked).run(), output


def test_a_small_study_has_every_cell_of_its_rows(made):
  document, output = made
  cells = document['cells']
  # Two rows, eight kinds of holes, three metrics, composite and raw; the other set is not given.
  assert len(cells) == 2 * 8 * 3 * 2
  assert {c['dataset'] for c in cells} == {'celeba'} and {c['size'] for c in cells} == {SIDE}
  assert {(c['holes'], c['masks'].partition(':')[0]) for c in cells} == {
    ('center', 'center'),
    ('random', 'survey_random'),
  }
  key = lambda c: (c['row'], c['holes'], c['percent'], c['metric'], c['of'])
  means = {key(c): c['mean'] for c in cells}
  assert all(m is not None for m in means.values()) and all(c['n'] == 2 for c in cells)
  # Nothing outside the hole of a composite is wrong; a network without training is wrong there.
  assert means['glcic', 'center', 10, 'psnr', 'composite'] > (
    means['glcic', 'center', 10, 'psnr', 'raw'] + 1
  )
  assert json.loads((output / 'study.json').read_text()) == document
  assert (output / 'celeba' / 'report.md').exists()


def test_a_cell_is_the_mean_over_the_drawn_images(made, folder):
  """Mean fill of a centre square of 25 %, computed here by hand."""
  document, _ = made
  drawn = study_images.draw(sources.make(f'folder:{folder}', ''), 2, 0)
  assert document['datasets']['celeba']['names'] == study_images.names_of(drawn)
  options = protocols.get('survey').image_options
  images = pipeline.evaluation_set(drawn, size=SIDE, **options)
  psnr = []
  for i in range(2):
    truth = images[i][0].astype(np.float64)
    hole = np.zeros((SIDE, SIDE), bool)
    hole[16:48, 16:48] = True
    filled = np.where(hole[..., None], np.rint(truth[~hole].mean(0)), truth)
    mse = ((filled - truth) ** 2).mean((0, 1))
    psnr.append(np.mean(10 * np.log10(255**2 / mse)))
  (found,) = [
    c['mean']
    for c in document['cells']
    if (c['row'], c['holes'], c['percent'], c['metric'], c['of'])
    == ('mean fill', 'center', 25, 'psnr', 'composite')
  ]
  assert found == pytest.approx(np.mean(psnr), abs=0.01)  # .5 may round either way in float32


def test_the_page_shows_what_is_measured_and_what_is_printed(made):
  text = (made[1] / 'study.md').read_text()
  assert [f'## Table {n}' in text for n in range(2, 16)] == [True] * 14
  table = text[text.index('## Table 10') : text.index('## Table 11')]
  faces, places = table.split('**Places2**')
  assert (
    'masks `center' in faces and '| glcic | composite |' in faces and '| glcic | raw |' in faces
  )
  assert '| EdgeConnect | not given |' in faces
  assert '| *GL* | *published* | *26.39* |' in faces
  assert 'not given' in places and '| *GL* | *published* | *27.02* |' in places
  random = text[text.index('## Table 11') : text.index('## Table 12')]
  assert 'masks `survey_random' in random
  # A fill belongs to no class, and stands in every table.
  assert text.count('| mean fill | composite |') == 9
  assert '2 test images (the survey: 1,000) drawn with seed 0 of the 3' in text


def test_the_lists_part_the_data(made, folder):
  _, output = made
  test, train = ((output / f'celeba_{p}.txt').read_text().split() for p in ('test', 'train'))
  assert len(test) == 2 and sorted(test + train) == sorted(map(str, folder.iterdir()))
  assert not (output / 'places2_test.txt').exists()
  assert len(sources.make(f'files:{output / "celeba_test.txt"}')) == 2


def test_a_finished_study_is_made_again_and_other_folders_are_not(made, folder, tmp_path):
  study.check_folder(made[1])
  interrupted = tmp_path / 'interrupted'
  interrupted.mkdir()
  (interrupted / 'costs.json').write_text('[]')
  study.check_folder(interrupted)  # while costs were measured
  (tmp_path / 'thesis.tex').write_text('')
  with pytest.raises(ValueError, match='holds other files and no study'):
    study.check_folder(tmp_path)
  # Before hours of measuring, too.
  with pytest.raises(ValueError, match='holds other files and no study'):
    study.measure_resources(request(folder, tmp_path, resources={}))


def test_what_is_finished_is_not_measured_again(made, folder, weights, monkeypatch):
  document, output = made
  asked = request(folder, output, rows=[f'glcic={weights}'])

  def evaluated(*args, **kwargs):
    raise AssertionError('measured again')

  monkeypatch.setattr(study.run, 'evaluate_and_report', evaluated)
  again = study.prepare(asked).run()
  assert again['cells'] == document['cells'] and again['datasets'] == document['datasets']
  for changes in (
    dict(rows=[f'mine={weights}']),
    dict(rows=[f'glcic={weights}'], size=72),
    dict(rows=[f'glcic={weights}'], resume=False),
  ):
    with pytest.raises(AssertionError, match='measured again'):
      study.prepare(request(folder, output, **changes)).run()


def test_outputs_made_elsewhere_are_looked_for_first(folder, tmp_path):
  (tmp_path / 'theirs').mkdir()
  with pytest.raises(EvaluationError, match=r"row 'theirs': .* has no output of center 10"):
    study.prepare(request(folder, tmp_path / 'out', rows=[f'theirs={tmp_path / "theirs"}']))


def test_native_sizes_hold_unless_one_is_asked_for(weights):
  config = survey_study.get_config()
  assert study._load(str(weights), config, None)[:2] == ('glcic', 96)
  assert study._load(str(weights), config, 64)[1] == 64
  config.own_size = ()
  assert study._load(str(weights), config, None)[1] == 256


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    (dict(rows=['glcic']), "--row 'glcic' must be NAME=PATH"),
    (dict(rows=['mine=/nowhere/x']), '--row mine: there are no weights at /nowhere/x'),
    (dict(rows=['edgeconnect=WEIGHTS']), "is of the system 'glcic': give weights of edgeconnect"),
    (dict(rows=['EdgeConnect=WEIGHTS']), 'give weights of EdgeConnect'),
    (dict(rows=['mean fill=WEIGHTS']), 'a fill has this name already'),
    (dict(data={}), '--celeba folder:DIR or --places2 folder:DIR'),
    (dict(data={'celeba': 'folder:/nowhere'}), '/nowhere'),
    (dict(data={'imagenet': 'folder:x'}), "unknown data sets ['imagenet']"),
    (dict(size=4), '4'),
  ],
)
def test_what_cannot_be_made_is_said_first(changes, sentence, folder, weights, tmp_path):
  if 'rows' in changes:
    changes = {'rows': [r.replace('WEIGHTS', str(weights)) for r in changes['rows']]}
  with pytest.raises(EvaluationError) as caught:
    study.prepare(request(folder, tmp_path / 'out', **changes))
  assert sentence in str(caught.value)
  assert not (tmp_path / 'out').exists()


def test_more_images_than_there_are(folder, tmp_path, capsys):
  words = ['--config', 'configs/survey_study.py', '--celeba', f'folder:{folder}']
  words += ['--output', str(tmp_path / 'out'), '--config.fills=("mean",)']
  assert command.main(words) == 1
  assert '1000 test images are wanted of --celeba' in capsys.readouterr().err
  for wrong, sentence in (
    (['--output', 'x'], 'give --config survey_study'),
    ([*words, '--cout', '3'], 'there is no flag --cout; is --count meant?'),
  ):
    with pytest.raises(SystemExit, match='2'):
      command.main(wrong)
    assert sentence in capsys.readouterr().err


def test_a_folder_that_another_study_has_ends_in_a_sentence(tmp_path, capsys, monkeypatch):
  def prepare(request):
    raise locks.InUse(f'{request.output} is in use by process 7')

  monkeypatch.setattr(study, 'prepare', prepare)
  words = ['--config', 'survey_study', '--output', str(tmp_path)]
  assert command.main(words) == 1
  assert capsys.readouterr().err.strip().endswith(f'{tmp_path} is in use by process 7')
