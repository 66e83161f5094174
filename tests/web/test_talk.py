"""The dialog that asks for the token, which all pages make of the same script."""

import pathlib
import re

import pages

from jaxinpaint import web

TALK = pathlib.Path(web.__file__).with_name('page').joinpath('talk.js').read_text('utf-8')


def test_the_dialog_is_made_of_its_texts_in_both_languages():
  texts = pages.languages(TALK)
  made = set(re.findall(r"'data-text': '(\w+)'", TALK))
  pages.check_languages(texts, [], made)
  assert made == set(texts['en'])
  for key, chinese in texts['zh'].items():
    assert re.search('[\u4e00-\u9fff]', chinese), key


def test_the_script_finds_what_it_makes():
  made = re.findall(r"\bid: '([\w-]+)'", TALK)
  assert len(made) == len(set(made))
  assert set(re.findall(r"\$\('([\w-]+)'\)", TALK)) <= set(made)
