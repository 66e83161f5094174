"""The page: complete in its languages, no strangers, readable; and driven in a browser, if any."""

import contextlib
import json
import pathlib
import re
import threading

import pages
import pytest
import server_cases as cases
from test_http import running

from jaxinpaint import web

PAGE = pathlib.Path(cases.app.__file__).with_name('page')
HTML = (PAGE / 'index.html').read_text('utf-8')
SHARED = pathlib.Path(web.__file__).with_name('page')
SCRIPTS = {p.name: p.read_text('utf-8') for at in (PAGE, SHARED) for p in at.glob('*.js')}
CSS = (SHARED / 'base.css').read_text('utf-8') + (PAGE / 'style.css').read_text('utf-8')


@pytest.fixture(scope='module')
def elements():
  return pages.elements(HTML)


def test_both_languages_say_the_same_things(elements):
  texts = pages.languages(SCRIPTS['texts.js'])
  used = {a[name] for _, a in elements for name in ('data-text', 'data-label') if name in a}
  used |= set(re.findall(r"\b(?:text|say)\('(\w+)'", SCRIPTS['app.js'] + SCRIPTS['talk.js']))
  states = set(cases.jobs.STATES) - set(cases.jobs.ENDS)
  pages.check_languages(texts, elements, used | states | {'cancelled'})
  assert len(texts['en']) > 50
  changing = [state for state in states if '{seconds}' in texts['en'][state]]
  assert not changing, 'they would be read out again every second'
  for key, chinese in texts['zh'].items():
    assert re.search('[\u4e00-\u9fff]', chinese), key


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline(elements):
  pages.check_nothing_from_elsewhere({'index.html': HTML, 'style.css': CSS, **SCRIPTS})
  pages.check_nothing_inline(elements, SCRIPTS)


def test_every_control_has_a_name_and_every_id_is_there(elements):
  ids = [a['id'] for _, a in elements if 'id' in a]
  assert len(ids) == len(set(ids))
  named = set(re.findall(r"\$\('([\w-]+)'\)", SCRIPTS['app.js']))
  assert named <= set(ids), named - set(ids)
  labelled = re.findall(r'<label[^>]*>(.*?)</label>', HTML, re.S)
  for tag, a in elements:
    if tag in ('input', 'select') and a.get('type') != 'file':
      own = f'id="{a["id"]}"' if 'id' in a else f'value="{a["value"]}"'
      inside = [text for text in labelled if own in text]
      assert len(inside) == 1 and 'data-text' in inside[0], (tag, a)
    if tag == 'button':
      assert 'data-text' in a or 'aria-label' in a, a


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_words_have_enough_contrast(scheme):
  """WCAG 2.2, 1.4.3 (4.5 for text) and 1.4.11 (3 for the borders of controls)."""
  palette = pages.colours(CSS, scheme)
  for ink, paper in [
    *(('ink', paper) for paper in ('paper', 'raised', 'warn', 'board')),
    *(('soft', 'paper'), ('accent', 'paper'), ('on-accent', 'accent')),
  ]:
    assert pages.contrast(palette, ink, paper) >= 4.5, (ink, paper)
  for line in ('rule', 'accent', 'warn-rule'):
    assert pages.contrast(palette, line, 'paper') >= 3, line


@pytest.mark.slow
@pytest.mark.parametrize(
  'width, scheme, language', [(1300, 'light', 'en-GB'), (400, 'dark', 'zh-CN')]
)
def test_a_person_brushes_repairs_goes_on_and_downloads(browser, tmp_path, width, scheme, language):
  photo = cases.photo(90, 120)
  exif = cases.Image.Exif()
  exif[0x010F] = 'a maker'
  data = cases.encoded(photo, 'JPEG', exif=exif, quality=95)
  gate = threading.Event()
  with running(painter=cases.Slow(gate)) as port, contextlib.ExitStack() as at_the_end:
    at_the_end.callback(gate.set)
    context = browser.new_context(
      viewport={'width': width, 'height': 860}, color_scheme=scheme, locale=language
    )
    page = context.new_page()
    said = []
    page.on('console', lambda m: said.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda error: said.append(str(error)))
    page.goto(f'http://127.0.0.1:{port}/')
    assert page.locator('html').get_attribute('lang') == {'en-GB': 'en', 'zh-CN': 'zh-CN'}[language]
    file = {'name': 'my.photo.jpg', 'mimeType': 'image/jpeg', 'buffer': data}
    page.set_input_files('#image-file', file)
    shows = lambda text: page.locator('#status', has_text=text).wait_for()
    shows('120')
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    page.click('#repair')
    assert page.locator('#error').is_visible(), 'nothing is painted yet'
    page.click('#invert')
    assert page.locator('#error').is_hidden(), 'it was about another hole'
    black = cases.encoded(255 - 255 * cases.np.eye(90, 120, dtype=cases.np.uint8))
    page.set_input_files('#mask-file', {'name': 'm.png', 'mimeType': 'image/png', 'buffer': black})
    shows({'en-GB': 'press Invert', 'zh-CN': '请按“反选”'}[language])
    page.click('#clear')
    box = page.locator('#stage').bounding_box()
    middle = (box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 10, steps=4)
    page.mouse.up()
    page.mouse.wheel(0, -100)  # another size
    page.keyboard.press('Shift+ArrowLeft')
    page.keyboard.press('Control+z')
    assert page.locator('#redo').is_enabled() and page.locator('#undo').is_enabled()
    page.keyboard.press('Control+y')
    page.click('#repair')
    page.wait_for_selector('#progress:not([hidden])')
    compiling = {'en-GB': 'Compiling', 'zh-CN': '编译'}[language]
    shows(compiling)
    gate.set()
    page.wait_for_selector('#done:not([hidden])')
    assert page.locator('#size').is_disabled() and page.locator('#warnings').is_hidden()
    with page.expect_download() as download:
      page.click('#download')
    name = download.value.suggested_filename
    download.value.save_as(tmp_path / name)
    assert name == 'my.photo-repaired.jpg'
    repaired = cases.Image.open(tmp_path / name)
    assert repaired.getexif()[0x010F] == 'a maker' and repaired.size == (120, 90)
    assert abs(cases.np.asarray(repaired)[45, 60].astype(int) - [51, 153, 204]).max() < 12
    page.click('#again')
    page.wait_for_selector('#done', state='hidden')
    page.set_input_files('#image-file', {'name': 'x.txt', 'mimeType': 'text/plain', 'buffer': b'x'})
    page.wait_for_selector('#error:not([hidden])')
    assert 'x.txt' in page.locator('#error').text_content()
    page.click('.panel a[href=docs]')
    page.locator('h2', has_text='/api/v1/inpaint').wait_for()
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert not said, json.dumps(said)
    context.close()
