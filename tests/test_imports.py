"""Nobody imports upwards: the table of docs/architecture.md, checked; no circles, no strangers."""

import ast
import pathlib
import re

import pytest

TOP = pathlib.Path(__file__).parent.parent
ROOT = TOP / 'jaxinpaint'
FILES = sorted(ROOT.rglob('*.py'))
RUNTIME_STRANGERS = ('torch', 'tensorflow', 'pickle', 'dill', 'cloudpickle')


def read_floors() -> dict[str, int]:
  """{room: its floor}, of the table."""
  rows = re.findall(r'^\| (\d+) \| ([^|]+) \|', (TOP / 'docs/architecture.md').read_text(), re.M)
  return {room.strip(): int(floor) for floor, rooms in rows for room in rooms.split(',')}


FLOORS = read_floors()


def is_door(node: ast.stmt) -> bool:
  """Whether it is `if __name__ == '__main__':`; what stands under it is an entry point."""
  return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def name_of(path: pathlib.Path) -> str:
  """'jaxinpaint.layers.conv'."""
  parts = path.relative_to(TOP).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {name_of(path) for path in FILES}


def imported(path: pathlib.Path, everywhere: bool = True):
  """Full names of what a file imports; everywhere=False: when it is loaded, not later."""
  body = [n for n in ast.parse(path.read_text()).body if not is_door(n)]
  if not everywhere:
    body = [n for n in body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    body = [
      n for n in body if not (isinstance(n, ast.If) and 'TYPE_CHECKING' in ast.unparse(n.test))
    ]
  for top in body:
    for node in ast.walk(top):
      if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
      elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f'{path}:{node.lineno}: write the whole module name'
        yield from (f'{node.module}.{alias.name}' for alias in node.names)


def room(name: str) -> str:
  """'layers' of 'jaxinpaint.layers.conv'."""
  return name.split('.')[1] if '.' in name else ''


def test_every_room_has_its_floor():
  rooms = {room(name) for name in MODULES} - {'', '__main__'}
  assert rooms == set(FLOORS), 'docs/architecture.md lists every room, and none that is not there'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
  own = room(name_of(path))
  for name in imported(path):
    assert name.split('.')[0] not in RUNTIME_STRANGERS, f'{path} imports {name}'
    other = room(name) if name.startswith('jaxinpaint.') else ''
    if other not in FLOORS or not own or other == own:
      continue
    assert FLOORS[other] < FLOORS[own], f'{path} imports {name}, which stands above or beside it'
    if path.name == 'networks.py':
      assert other in ('arrays', 'layers'), f'{path} imports {name}'


def test_systems_do_not_know_each_other():
  systems = {p.parent.name for p in ROOT.glob('systems/*/recipe.py')}
  for path in (ROOT / 'systems').glob('*/*.py'):
    for name in imported(path):
      if name.startswith('jaxinpaint.systems.'):
        assert name.split('.')[2] not in systems - {path.parent.name}, f'{path} imports {name}'


def test_no_module_is_in_a_circle():
  def modules(name):
    return next((n for n in (name, name.rpartition('.')[0]) if n in MODULES), None)

  arrows = {name_of(p): {modules(n) for n in imported(p, False)} & MODULES for p in FILES}
  done: set[str] = set()

  def walk(name, trail):
    assert name not in trail, ' -> '.join([*trail[trail.index(name) :], name])
    if name not in done:
      for other in sorted(arrows[name] - {name}):
        walk(other, [*trail, name])
      done.add(name)

  for name in sorted(arrows):
    walk(name, [])


def test_no_room_without_a_name():
  banned = {'utils.py', 'util.py', 'helpers.py', 'common.py', 'misc.py'}
  assert not [p for p in FILES if p.name in banned]


def test_no_system_is_named_outside_its_folder():
  names = {p.parent.name for p in ROOT.glob('systems/*/recipe.py')}
  assert names
  for path in FILES:
    if 'systems' in path.parts and path.parent.name in names:
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Compare):
        literals = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        assert not names & {v for v in literals if isinstance(v, str)}, f'{path}:{node.lineno}'
