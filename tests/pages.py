"""What every page of this library is checked for: its words, its names, its contrast."""

import html.parser
import re


class _Elements(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.all = []

  def handle_starttag(self, tag, attributes):
    self.all.append((tag, dict(attributes)))


def elements(text):
  """[(tag, {attribute: value})]."""
  parser = _Elements()
  parser.feed(text)
  return parser.all


def languages(texts):
  """{language: {key: text}} of a texts.js."""
  found = {}
  for name, part in re.findall(r'^  (\w+): \{\n(.*?)^  \},$', texts, re.M | re.S):
    # A text has ' or " around it, and may go on over lines.
    entries = re.findall(r"^    (\w+):\s*((?:(?:'[^']*'|\"[^\"]*\")[\s+]*)+),$", part, re.M)
    joined = lambda text: ''.join(a or b for a, b in re.findall(r"'([^']*)'|\"([^\"]*)\"", text))
    found[name] = {key: joined(text) for key, text in entries}
    assert len(entries) == len(re.findall(r'^    \w+:', part, re.M)), 'each entry is read'
  return found


def check_languages(texts, found, used):
  """All texts are there in all languages, with the same fields; the page's own are the English."""
  assert set(texts) == {'en', 'zh'} and list(texts['en']) == list(texts['zh'])
  assert used <= set(texts['en']), used - set(texts['en'])
  fields = lambda text: sorted(re.findall(r'\{(\w+)\}', text))
  for key, english in texts['en'].items():
    assert fields(english) == fields(texts['zh'][key]), key
  for tag, attributes in found:
    label = attributes.get('data-label')
    assert label is None or attributes['aria-label'] == texts['en'][label], (tag, label)


def check_nothing_from_elsewhere(files):
  """No address of another site, in {name of a file: its text}."""
  for name, text in files.items():
    addresses = [a for a in re.findall(r'https?://[^\s"\')]+', text) if 'w3.org' not in a]
    assert not addresses, (name, addresses)


def check_nothing_inline(found, scripts):
  """What the Content-Security-Policy forbids, and texts that are read as HTML."""
  for tag, attributes in found:
    assert not [a for a in attributes if a.startswith('on') or a == 'style'], (tag, attributes)
    assert tag != 'script' or attributes.get('src') in scripts
  assert not re.search(r'innerHTML|document\.write|eval\(|\.style\b', ''.join(scripts.values()))


def colours(css, scheme):
  """{name: '#rrggbb'} of the variables in style sheets, joined."""
  text, found = css, {}
  dark = re.compile(r'@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}\s*\}', re.S)
  light = re.findall(r':root \{(.*?)\}', dark.sub('', text), re.S)
  for block in light + (dark.findall(text) if scheme == 'dark' else []):
    found |= dict(re.findall(r'--([\w-]+): (#\w+);', block))
  return found


def contrast(palette, a, b):
  """WCAG's, of two colours of a palette."""

  def luminance(name):
    channels = [int(palette[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

  high, low = sorted((luminance(a), luminance(b)), reverse=True)
  return (high + 0.05) / (low + 0.05)
