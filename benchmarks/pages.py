"""Parts of the documents that benchmarks make: tables in Markdown, between two marks.

  text = between(text, 'systems: made by python -m benchmarks.zoo', table(columns, rows))

The marks are comments, `<!-- systems: made by ... -->` and `<!-- end of systems -->`.
"""

import re
from collections.abc import Sequence


def between(text: str, mark: str, body: str) -> str:
  """The page `text` with `body` between the marks.

  Args:
    text: of a document.
    mark: what the first comment says; up to its colon it is the part's name, in the second.
    body: ends with a line break.

  Raises:
    ValueError: the marks are not there.
  """
  begin, end = f'<!-- {mark} -->\n', f'<!-- end of {mark.partition(":")[0]} -->\n'
  if begin not in text or end not in text:
    raise ValueError(f'the page needs the lines {begin.strip()!r} and {end.strip()!r}')
  return re.sub(
    f'{re.escape(begin)}.*{re.escape(end)}', lambda _: begin + body + end, text, flags=re.S
  )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table in Markdown."""
  line = lambda cells: f'| {" | ".join(cells)} |\n'
  return line(columns) + f'|{"---|" * len(columns)}\n' + ''.join(map(line, rows))
