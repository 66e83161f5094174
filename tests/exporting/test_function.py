"""The function that is exported fills what the Predictor fills, and its card says how."""

import json

import exporting_cases as cases
import jax
import numpy as np
import pytest

from jaxinpaint import systems
from jaxinpaint.exporting import function
from jaxinpaint.predictor import Predictor


def filled(exportable, image, mask, **how):
  return np.asarray(jax.jit(lambda *a: exportable.fill(exportable.weights, *a, **how))(image, mask))


@pytest.mark.parametrize('form', ['plain', 'cpu'])
def test_it_is_the_predictors(form):
  trained = cases.trained()
  image, mask = cases.pictures(2, 8, 10)
  want = Predictor(trained.inference, trained.variables)(
    np.where(mask, 0, image), mask, np.arange(2)
  )
  image[mask[..., 0] > 0] = np.nan  # whatever is in a hole
  got = filled(function.build(trained), image, 0.6 * mask, form=form)
  np.testing.assert_allclose(got, want, atol=1e-6)
  np.testing.assert_array_equal(got[mask[..., 0] == 0], image[mask[..., 0] == 0])


def test_half_a_hole_is_none():
  image, mask = cases.pictures(1, 8, 8)
  np.testing.assert_array_equal(filled(function.build(cases.trained()), image, mask / 2), image)


def test_each_image_has_its_random_numbers():
  trained = cases.trained(cases.noisy, samples=True)
  image, mask = cases.pictures(2, 8, 8)
  image[1], mask[:] = image[0], 1
  got = {seed: filled(function.build(trained, seed=seed), image, mask) for seed in (0, 1)}
  predictor = Predictor(trained.inference, trained.variables, seed=1)
  np.testing.assert_allclose(got[1], predictor(0 * image, mask, np.arange(2)), atol=1e-6)
  for other in (got[0][0], got[1][1]):
    assert np.abs(got[1][0] - other).max() > 0.1


def test_of_paths_the_last_part_is_given_away_and_names_are_kept():
  config = systems.default_config('migan')
  teachers = {
    '/home/ann/runs/teacher@300': 'teacher@300',
    'runs/comodgan.safetensors': 'comodgan.safetensors',
    'comodgan/places2-512': 'comodgan/places2-512',
    'mesff/box': 'mesff/box',
    '': '',
  }
  for given, wanted in teachers.items():
    config.loss.teacher = given
    assert function.without_folders(config).loss.teacher == wanted
    assert config.loss.teacher == given
  trained = cases.trained()
  trained.config.model.update(dict(stylegan_file='/home/ann/stylegan.pt'), width=3)
  assert function.build(trained).card['config']['model'] == {
    'stylegan_file': 'stylegan.pt',
    'width': 3,
  }


def test_the_card_is_json_and_says_the_conventions():
  about = {'licence': 'CC0', 'notes': ['one'], 'networks': {}, 'source': {'step': 5}}
  card = json.loads(json.dumps(function.build(cases.trained(card=about)).card))
  assert card['conventions']['sizes'] == {
    'multiple': 2,
    'min_side': 6,
    'side': 0,
    'pad_mode': 'reflect',
  }
  assert '1 in the hole' in card['conventions']['inputs']['mask']['holds']
  assert (card['system'], card['weights']) == ('toy', 'toy (toy.safetensors)')
  assert (card['licence'], card['notes'], card['source']) == ('CC0', ['one'], {'step': 5})
  assert card['config']['model'] == {'width': 3} and 'seed' not in card
  assert set(card['conventions']) == {'inputs', 'outputs', 'sizes'}
  refusing = cases.trained(check_hole=lambda hole: None)
  assert 'does not check' in function.build(refusing).card['conventions']['holes']
  card = function.build(cases.trained(cases.noisy, samples=True), seed=3).card
  assert (card['seed'], card['licence']) == (3, 'not stated')


def test_what_is_made_outside_of_the_networks_is_refused():
  with pytest.raises(function.ExportError, match=r'reads canny:sigma=2 beside .* jaxinpaint\.load'):
    function.build(cases.trained(inputs=('canny:sigma=2',)))
  assert function.conventions(cases.trained(inputs=('gray',)).inference)['further_inputs'] == [
    'gray'
  ]


def test_sizes():
  exportable = function.build(cases.trained())
  exportable.check_size(6, 8)
  for size in ((7, 8), (8, 7), (4, 8)):
    with pytest.raises(
      function.ExportError, match=r'multiples of 2 and at least 6, .* export \d x'
    ):
      exportable.check_size(*size)
  with pytest.raises(function.ExportError, match='takes images of 16 x 16 alone, not of 8 x 16'):
    function.build(cases.trained(side=16)).check_size(8, 16)
