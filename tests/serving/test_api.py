"""The HTTP API with a toy system: the same bytes as files, and a sentence for everything else."""

import base64
import io
import json
import struct
import sys
import zlib

import numpy as np
import pytest
import server_cases as cases
import toy_system
from PIL import Image
from starlette.testclient import TestClient

from jaxinpaint.cli import inpaint
from jaxinpaint.inference.checks import InpaintError
from jaxinpaint.inference.files import inpaint_files
from jaxinpaint.pictures.decode import UnreadableImage
from jaxinpaint.serving import app, limits, problems
from jaxinpaint.serving.limits import Limits, TooLarge
from jaxinpaint.serving.models import Models
from jaxinpaint.web import problems as web_problems
from jaxinpaint.weights.store import StoreError


@pytest.fixture(scope='module')
def client():
  with cases.client() as opened:
    yield opened


def photograph(format):
  """A file with what its format holds besides pixels."""
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = 6, 'a maker'
  options = {'JPEG': dict(exif=exif, quality=90, dpi=(72, 72)), 'PNG': dict(dpi=(72, 72))}
  grey = format == 'TIFF'
  array = cases.photo()[..., 0] if grey else cases.photo(channels=4 if format == 'PNG' else 3)
  return cases.encoded(array, format, **options.get(format, {}))


@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF'])
@pytest.mark.parametrize('blend', ['none', 'poisson'])
def test_the_bytes_are_those_of_inpaint(client, tmp_path, format, blend):
  data = photograph(format)
  picture = Image.open(io.BytesIO(data))
  size = picture.size if format == 'JPEG' else picture.size[::-1]  # its EXIF turns it
  mask = cases.encoded(toy_system.hole(*size))
  ending = {'JPEG': 'jpg', 'TIFF': 'tif'}.get(format, format.lower())
  image, hole, out = (tmp_path / name for name in (f'a.{ending}', 'm.png', f'out.{ending}'))
  image.write_bytes(data)
  hole.write_bytes(mask)
  inpaint_files(toy_system.inpainter(blend=blend), image, hole, out, say=lambda sentence: None)
  answer = client.post(cases.URL, files=cases.files(data, mask), data={'blend': blend})
  assert answer.status_code == 200, answer.text
  assert answer.content == out.read_bytes()
  assert answer.headers['content-type'] == limits.MEDIA_TYPES[format]
  assert cases.decoded(answer.content).tolist() != cases.decoded(data).tolist()


def test_json_says_the_same_as_a_form(client):
  form = client.post(cases.URL, files=cases.files(), data={'format': 'webp'})
  content = {name: base64.b64encode(data[1]).decode() for name, data in cases.files().items()}
  sent = client.post(
    cases.URL, json=content | {'format': 'webp'}, headers={'Accept': 'application/json'}
  )
  assert sent.status_code == 200, sent.text
  answer = sent.json()
  assert base64.b64decode(answer['image'], validate=True) == form.content
  assert answer['media_type'] == 'image/webp' and answer['model'] == 'toy'
  assert answer['warnings'] == [] and answer['seconds'] > 0
  raw = client.post(cases.URL, json=content, headers={'Accept': 'image/webp'})
  assert raw.content == form.content


def test_black_may_be_the_hole(client):
  black = cases.encoded(255 - toy_system.hole(20, 24))
  inverted = client.post(cases.URL, files=cases.files(mask=black), data={'invert_mask': 'true'})
  assert inverted.content == client.post(cases.URL, files=cases.files()).content


def test_warnings_are_said(client):
  mask = cases.encoded(255 - 255 * (toy_system.hole(20, 24)[::-1, ::-1] > 0).astype(np.uint8))
  answer = client.post(cases.URL, files=cases.files(mask=mask), data={'format': 'jpg'})
  said = json.loads(answer.headers[app.WARNINGS_HEADER])
  assert any('looks inverted' in s and s.endswith('send invert_mask=true') for s in said)
  assert any('JPEG stores known pixels again with loss' in s for s in said)


@pytest.mark.parametrize(
  'share, invert, words',
  [
    (0.0, 'false', 'or send invert_mask=true if the hole is black'),
    (1.0, 'true', 'or leave out invert_mask if the hole is white'),
    (0.9, 'true', None),
    (1.0, 'false', 'paint what is to be kept black, or send invert_mask=true'),
    (0.0, 'true', 'paint what is to be kept white, or leave out invert_mask'),
  ],
)
def test_the_api_names_its_own_options(client, share, invert, words):
  mask = np.zeros((20, 24), np.uint8)
  mask[: round(20 * share)] = 255
  how = dict(files=cases.files(mask=cases.encoded(mask)), data={'invert_mask': invert})
  answer = client.post(cases.URL, **how)
  said = answer.headers.get(app.WARNINGS_HEADER, '') if answer.status_code == 200 else answer.text
  assert '--' not in said and (words in said if words else not said)
  how['data']['check_mask'] = 'false'
  assert app.WARNINGS_HEADER not in client.post(cases.URL, **how).headers


def test_a_mask_without_a_hole_only_writes_the_picture_anew(client):
  data = photograph('JPEG')
  empty = cases.encoded(np.zeros((24, 20), np.uint8))
  same = client.post(cases.URL, files=cases.files(data, empty))
  assert same.content == data
  png = client.post(cases.URL, files=cases.files(data, empty), data={'format': 'png'})
  exif = Image.open(io.BytesIO(png.content)).getexif()
  assert exif[0x010F] == 'a maker' and exif.get(0x0112, 1) == 1, 'kept, and turned upright'


def test_sizes_are_gathered_only_where_the_request_allows(client):
  seen = []

  class Painter(cases.Slow):
    def hold(self):
      pass

  painter = Painter()
  predictor = painter.predictor._predictor
  original = predictor.padded_size
  held = type(painter.predictor)

  def call(self, images, masks, *rest, **options):
    seen.append(self.padded_size(*images[0].shape[:2]))
    return self._predictor(images, masks, *rest, **options)

  old, held.__call__ = held.__call__, call
  try:
    with cases.client(Limits(pad_to=32), painter) as own:
      for exact in ('true', 'false'):
        assert (
          own.post(cases.URL, files=cases.files(), data={'exact_size': exact}).status_code == 200
        )
  finally:
    held.__call__ = old
  assert seen == [original(20, 24), (32, 32)] and seen[0] == (24, 24)


@pytest.mark.parametrize(
  'options, words',
  [
    ({'model': 'none'}, 'toy'),
    ({'model': '../../etc/passwd'}, 'there is no model'),
    ({'format': 'exe'}, 'format'),
    ({'blend': 'magic'}, 'poisson'),
    ({'max_side': 'long'}, 'max_side'),
    ({'max_side': '5000'}, 'at most 1024'),
    ({'sample': '-1'}, 'sample'),
    ({'image_path': '/etc/passwd'}, 'image_path'),
    ({'exact_size': 'maybe'}, 'exact_size'),
    ({'model': 'x' * 5000}, '1KB'),
  ],
)
def test_wrong_options_get_a_sentence(client, options, words):
  assert words in cases.problem(client.post(cases.URL, files=cases.files(), data=options), 400)


def png_of_nothing(width, height):
  """A PNG of a hundred bytes that claims so many pixels."""
  chunk = lambda kind, data: (
    struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
  )
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  pixels = zlib.compress(bytes(1000))
  parts = [chunk(b'IHDR', header), chunk(b'IDAT', pixels), chunk(b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


@pytest.mark.parametrize(
  'image, mask, status, words',
  [
    (b'', cases.MASK, 400, 'image: the file is empty'),
    (b'no picture', cases.MASK, 400, 'image: not a readable image'),
    (cases.IMAGE, b'no mask', 400, 'mask: not a readable image'),
    (cases.IMAGE[: len(cases.IMAGE) // 2], cases.MASK, 400, 'image: not a readable image'),
    (b'PK\x03\x04' + bytes(2000), cases.MASK, 400, 'image: not a readable image'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', cases.MASK, 400, 'not a readable'),
    (png_of_nothing(30000, 30000), cases.MASK, 413, '30000 x 30000 pixels are 900 megapixels'),
    (cases.IMAGE, png_of_nothing(30000, 30000), 413, 'mask: its 30000 x 30000'),
    (png_of_nothing(3000, 3000), cases.MASK, 400, 'image: not a readable image'),
    (cases.IMAGE, cases.encoded(np.zeros((9, 30), np.uint8)), 400, 'mask is 30 x 9 pixels (width'),
    (cases.IMAGE, cases.encoded(np.full((20, 24), 255, np.uint8)), 400, 'nothing to fill it from'),
  ],
)
def test_bad_pictures_get_the_sentences_of_inpaint(client, image, mask, status, words):
  detail = cases.problem(client.post(cases.URL, files=cases.files(image, mask)), status)
  assert words in detail and len(detail) < 400
  assert client.post(cases.URL, files=cases.files()).status_code == 200, 'the server goes on'


def test_a_gif_with_frames_is_refused(client):
  frames = [Image.fromarray(cases.photo()), Image.fromarray(cases.photo()[::-1])]
  out = io.BytesIO()
  frames[0].save(out, 'GIF', save_all=True, append_images=frames[1:])
  detail = cases.problem(client.post(cases.URL, files=cases.files(out.getvalue())), 400)
  assert '2 frames' in detail


def test_pixels_are_counted_before_they_are_decoded(monkeypatch):
  other = cases.encoded(cases.photo(), 'PPM')
  monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('decoded'))
  with pytest.raises(TooLarge, match='900 megapixels'):
    limits.check_header(png_of_nothing(30000, 30000), 'image', Limits())
  assert limits.check_header(png_of_nothing(30, 20), 'image', Limits()) == (20, 30)
  with pytest.raises(UnreadableImage):
    limits.check_header(other, 'image', Limits())


@pytest.mark.parametrize(
  'content, words',
  [
    (b'', 'JSON'),
    (b'{', 'JSON'),
    (b'[' * 200_000, 'JSON'),
    (b'[]', 'object'),
    (b'{"image": "AAAA"}', 'mask'),
    (b'{"image": "###", "mask": "AAAA"}', 'image: Value error, this is not base64'),
    (b'{"image": "AAA", "mask": "AAAA"}', 'not base64'),
    (b'{"image": 7, "mask": "AAAA"}', 'image'),
    (b'{"image": "AAAA", "mask": "AAAA", "path": "/etc/passwd"}', 'path'),
    ('{"image": "ÄÄÄÄ", "mask": "AAAA"}'.encode(), 'not base64'),
  ],
)
def test_wrong_json_gets_a_sentence(client, content, words):
  answer = client.post(cases.URL, content=content, headers={'Content-Type': 'application/json'})
  assert words in cases.problem(answer, 400)


def test_wrong_forms_get_a_sentence(client):
  say = lambda **what: cases.problem(client.post(cases.URL, **what), 400)
  assert 'missing: mask' in say(files={'image': cases.IMAGE})
  assert "'other' must not be a file" in say(files={'other': cases.IMAGE})
  assert "'mask' must be a file" in say(files={'image': cases.IMAGE}, data={'mask': 'x'})
  assert 'Too many files' in say(files=[('image', cases.IMAGE)] * 3)
  assert 'sent twice' in say(files=[('image', cases.IMAGE)] * 2)
  many = [(f'f{n}', (None, 'x')) for n in range(40)]
  assert 'Too many fields' in say(files=[*cases.files().items(), *many])
  form = 'multipart/form-data; boundary=xx'
  raw = lambda data, kind=form: say(content=data, headers={'Content-Type': kind})
  assert 'boundary' in raw(b'', 'multipart/form-data')
  assert raw(b'--yy\r\n\r\n--yy--')
  assert raw(b'--xx\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc')
  head = b'--xx\r\nContent-Disposition: form-data; name="image"; filename="a"\r\nX: '
  assert raw(head + b'y' * 3_000_000 + b'\r\n\r\n')
  assert cases.problem(
    client.post(cases.URL, content=b'x', headers={'Content-Type': 'text/plain'}), 415
  )


def test_names_of_files_mean_nothing(client, tmp_path):
  good = client.post(cases.URL, files=cases.files()).content
  for name in ('../../../etc/passwd', '/dev/zero', 'C:\\x', 'a\0b', '', '名'):
    sent = {'image': (name or 'x', cases.IMAGE), 'mask': (name or 'x', cases.MASK)}
    answer = client.post(cases.URL, files=sent)
    assert answer.status_code == 200 and answer.content == good


def test_nothing_is_written_to_a_disk_or_read_from_it(client):
  big = cases.encoded(cases.photo(1100, 900), compress_level=0)
  mask = cases.encoded(toy_system.hole(1100, 900))
  assert len(big) > 2_000_000, 'more than a part that Starlette would keep in memory'
  client.post(cases.URL, files=cases.files(big, mask))  # imports and compiles
  opened = []
  watching = True

  def watch(event, arguments):
    if watching and event in ('open', 'os.mkdir', 'os.rename', 'tempfile.mkstemp'):
      opened.append((event, str(arguments[0])))

  sys.addaudithook(watch)
  try:
    for kind in ('files', 'json'):
      content = {'files': cases.files(big, mask)}
      if kind == 'json':
        encode = lambda data: base64.b64encode(data).decode()
        content = {'json': {'image': encode(big), 'mask': encode(mask)}}
      assert client.post(cases.URL, **content).status_code == 200
  finally:
    watching = False
  assert not [what for what in opened if 'site-packages' not in what[1]]


def test_a_body_beyond_the_limit_is_refused_with_and_without_a_length():
  small = Limits(bytes=100_000)
  with cases.client(small) as own:
    big = cases.encoded(cases.photo(300, 300), compress_level=0)
    assert 'limit of 0.0953674 MiB' in cases.problem(
      own.post(cases.URL, files=cases.files(big)), 413
    )

    def pieces():
      for _ in range(400):
        yield b'x' * 1000

    for kind in ('application/json', 'multipart/form-data; boundary=xx'):
      answer = own.post(cases.URL, content=pieces(), headers={'Content-Type': kind})
      assert answer.status_code in (413, 400), 'a form that is no form may be told apart sooner'
    json_answer = own.post(
      cases.URL, content=pieces(), headers={'Content-Type': 'application/json'}
    )
    cases.problem(json_answer, 413, 'too-large')
    assert own.post(cases.URL, files=cases.files()).status_code == 200


def test_bodies_that_are_received_count_among_those_that_wait():
  with cases.client(Limits(held_bytes=20_000)) as own:
    big = cases.encoded(cases.photo(100, 100), compress_level=0)
    answer = own.post(cases.URL, files=cases.files(big))
    assert 'ask again' in cases.problem(answer, 429, 'too-many') and answer.headers['retry-after']
    for _ in range(20):  # all is given back
      assert own.post(cases.URL, files=cases.files()).status_code == 200


def test_weights_that_cannot_be_loaded_do_not_show_paths():
  from starlette.testclient import TestClient

  from jaxinpaint.serving.models import Models

  def load(path):
    if path == 'bad':
      raise StoreError('/srv/secret.safetensors is damaged')
    return toy_system.inpainter()

  models = Models({'good': 'good', 'bad': 'bad'}, Limits(), load)
  with TestClient(app.create(models, Limits()), base_url='http://localhost') as own:
    detail = cases.problem(own.post(cases.URL, files=cases.files(), data={'model': 'bad'}), 503)
    assert 'model bad' in detail and 'secret' not in detail
    answer = own.post(cases.URL, files=cases.files(), data={'model': 'good'})
    assert answer.headers['jaxinpaint-model'] == 'good'
    listed = own.get('/api/v1/models').json()
    assert [(m['name'], m['default'], m['loaded']) for m in listed['models']] == [
      ('good', True, True),
      ('bad', False, False),
    ]
    assert listed['max_side'] == 1024 and listed['max_bytes'] == Limits().bytes


def test_a_server_whose_padding_does_not_suit_the_model_says_so(caplog):
  with cases.client(Limits(pad_to=4095)) as own:
    detail = cases.problem(own.post(cases.URL, files=cases.files()), 503, 'model-failure')
    assert own.get('/api/v1/health').json()['status'] == 'failed'
  assert 'toy' in detail and 'pad_to 4095 pads sides to multiples of 32760' in caplog.text


def test_a_token_is_asked_for_everywhere_but_on_the_page_and_for_health():
  with cases.client(token='geheim', base_url='http://192.168.1.5') as own:
    for path in ('/', '/app.js', '/docs', '/api/v1/health'):
      assert own.get(path).status_code in (200, 503), path
    given = ('Bearer ', 'Bearer geheim2', 'Basic geheim', b'Bearer \xff\xfe')
    for wrong in ({}, *({'Authorization': value} for value in given)):
      for path in ('/metrics', '/api/v1/models', '/api/v1/jobs/x', '/api/v1/openapi.json'):
        answer = own.get(path, headers=wrong)
        assert 'Bearer TOKEN' in cases.problem(answer, 401, 'unauthorised')
        assert answer.headers['www-authenticate'] == 'Bearer'
      cases.problem(own.post(cases.URL, files=cases.files(), headers=wrong), 401)
    good = {'Authorization': 'Bearer geheim'}
    assert own.post(cases.URL, files=cases.files(), headers=good).status_code == 200
    assert own.get('/metrics', headers=good).status_code == 200


def test_other_sites_and_foreign_names_are_refused(client):
  post = lambda **headers: client.post(
    cases.URL, files=cases.files(), headers={k.replace('_', '-'): v for k, v in headers.items()}
  )
  assert post(Origin='http://127.0.0.1').status_code == 200
  for origin in ('http://evil.example', 'null', 'http://127.0.0.1:1', 'http://127.0.0.1.evil.x'):
    cases.problem(post(Origin=origin), 403, 'forbidden-origin')
  cases.problem(post(Sec_Fetch_Site='cross-site'), 403)
  for host in ('evil.example', '', '192.168.0.1', '127.0.0.1.evil.x', '[::1', 'a@b:c'):
    assert '--allow_host' in cases.problem(post(Host=host), 421, 'wrong-host')
  assert client.get('/', headers={'Host': 'localhost:8000'}).status_code == 200
  assert client.get('/', headers={'Host': '[::1]:8000'}).status_code == 200
  with cases.client(hosts=('pictures.example',), base_url='http://pictures.example') as own:
    assert own.get('/').status_code == 200


def test_answers_tell_browsers_to_be_careful(client):
  for path in ('/', '/docs', '/api/v1/models', '/no/such/thing'):
    headers = client.get(path).headers
    policy = headers['content-security-policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy and '*' not in policy
    assert headers['x-content-type-options'] == 'nosniff'
    assert headers['referrer-policy'] == 'no-referrer' and headers['cache-control'] == 'no-store'
    assert not [name for name in headers if name.startswith('access-control')]


def test_unknown_addresses_and_methods_are_problems(client):
  for path in ('/no', '/api/v1', '/page/index.html', '/%2e%2e/app.py', '/../limits.py'):
    cases.problem(client.get(path), 404, 'not-found')
  cases.problem(client.get(cases.URL), 405, 'wrong-method')
  cases.problem(client.put('/metrics'), 405, 'wrong-method')


def test_memory_that_does_not_suffice_for_a_picture_is_said():
  assert problems.of(MemoryError()).document['status'] == 413


def test_openapi_describes_every_route(client):
  document = client.get('/api/v1/openapi.json').json()
  described = {
    (path, method.upper()) for path, methods in document['paths'].items() for method in methods
  }
  routes = {
    (route.path, method) for route in client.app.routes for method in route.methods - {'HEAD'}
  }
  pages = {(path, 'GET') for path in (*app._FILES, '/docs')}
  assert described == routes - pages
  text = json.dumps(document)
  names = set(document['components']['schemas'])
  used = {part.split('"')[0] for part in text.split('#/components/schemas/')[1:]}
  assert used <= names
  page = client.get('/docs').text
  assert all(path in page for path, _ in described) and 'exact_size' in page
  assert all(f'urn:jaxinpaint:{kind}' in page for kind in web_problems.KINDS)


def test_metrics_are_counted():
  with cases.client() as own:
    own.post(cases.URL, files=cases.files())
    own.post(cases.URL, files=cases.files(mask=b'no'))
    own.get('/no/such/thing')
    lines = own.get('/metrics').text.splitlines()
  values = dict(line.rsplit(' ', 1) for line in lines if not line.startswith('#'))
  requests = 'jaxinpaint_requests_total{route="%s",status="%s"}'
  assert values[requests % (cases.URL, 200)] == values[requests % (cases.URL, 400)] == '1'
  assert values[requests % ('other', 404)] == '1'
  assert values['jaxinpaint_jobs_total{state="done"}'] == '1'
  assert values['jaxinpaint_job_seconds_count{model="toy"}'] == '1'
  assert values['jaxinpaint_job_seconds_bucket{model="toy",le="+Inf"}'] == '1'
  assert float(values['process_resident_memory_bytes']) > 1e7
  assert int(values['jaxinpaint_compilations_total']) >= 1
  kinds = [line.split()[2:] for line in lines if line.startswith('# TYPE')]
  assert len({name for name, _ in kinds}) == len(kinds)


def test_an_estimate_follows_the_last_compilation_and_a_size_is_compiled_once():
  made = cases.models(Limits(sizes=2))
  assert made.compile_estimate('toy', [(24, 24)]) == 6.0
  for size in ((24, 24), (32, 32)):
    made.note_use('toy', size)
  assert made.compile_estimate('toy', [(24, 24)]) is None
  made.note_use('toy', (40, 40))
  assert made.compile_estimate('toy', [(24, 24)]) == 6.0, 'beyond the bound all are dropped'


@pytest.mark.slow
def test_the_box_gives_the_bytes_of_the_command(tmp_path, photographs):
  data = cases.encoded(photographs[0], 'JPEG', quality=95)
  mask = cases.encoded(toy_system.hole(*photographs[0].shape[:2]))
  image, hole, out = tmp_path / 'a.jpg', tmp_path / 'm.png', tmp_path / 'out.png'
  image.write_bytes(data)
  hole.write_bytes(mask)
  assert inpaint.main(['--image', str(image), '--mask', str(hole), '--output', str(out)]) == 0
  models = Models({'mesff/box': 'mesff/box'}, Limits())
  with TestClient(app.create(models, Limits()), base_url='http://localhost') as own:
    answer = own.post(cases.URL, files=cases.files(data, mask), data={'format': 'png'})
    assert answer.content == out.read_bytes()
    padded = own.post(
      cases.URL, files=cases.files(data, mask), data={'format': 'png', 'exact_size': 'false'}
    )
    difference = cases.decoded(padded.content).astype(int) - cases.decoded(answer.content)
    assert abs(difference).mean() < 1, 'padding to few sizes changes little of the box'


def test_longer_pictures_are_completed_as_by_the_command():
  def painter(most, max_side=None):
    options = dict(max_side=max_side, blend='none', exact_size=True)
    return cases.models(Limits(max_side=most)).painter('toy', **options)

  for most in (320, 1024, 2048):
    strategy = painter(most).strategy
    assert (strategy.kind, strategy.limit) == ('auto', most)
    assert strategy.completes_whole((most, most)) and not strategy.completes_whole((64, most + 1))
  assert painter(None).strategy.kind == 'original'
  hole = np.zeros((1400, 2000), bool)
  hole[100:200, 100:200] = hole[1200:1300, 1700:1800] = True
  assert len(painter(1024).strategy.plan(hole).parts) == 2
  assert max(max(size) for size in painter(1024).seen_sizes(hole)) < 600
  assert max(max(size) for size in painter(320).seen_sizes(hole)) <= 320
  assert painter(2048).seen_sizes(hole) == {hole.shape}
  with pytest.raises(InpaintError, match='at most 300'):
    painter(300, max_side=301)
