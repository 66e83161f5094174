"""Nobody imports upwards: the table in docs/adding_a_system.md, checked."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / 'jaxinpaint'
FILES = sorted(ROOT.rglob('*.py'))
# room -> what of jaxinpaint it may import, besides its own folder
ALLOWED = {
  'arrays.py': (),
  'layers': ('arrays',),
  'losses': ('arrays',),
  'features': ('arrays', 'layers', 'weights'),
  'weights': ('systems', 'arrays', 'training.checkpoints'),  # and see FETCH
  'data': ('arrays',),
  'systems': ('arrays', 'layers', 'losses', 'features', 'weights', 'training.recipe'),
  'training': (
    *('arrays', 'command_line', 'data', 'distributed', 'evaluation', 'exclusive', 'systems'),
    'weights',
    'layers.conv',  # which form a step over several devices takes ...
    'layers.rows',  # ... and how it splits images
    'layers.operations',  # counts of work, for costs
  ),
  'evaluation': (
    *('arrays', 'command_line', 'data', 'exclusive', 'features', 'systems'),
    *('training.checkpoints', 'training.recipe', 'weights'),
  ),
  'inference': ('arrays', 'data', 'systems', 'training.checkpoints', 'training.recipe', 'weights'),
}
# The command that knows by name which files the networks of features want.
FETCH = ('weights', 'fetch.py')
# modules beside the systems' folders, of what several of them have in common
SHARED = tuple(p.stem for p in ROOT.glob('systems/*.py') if p.stem != '__init__')
RUNTIME_STRANGERS = ('torch', 'tensorflow', 'pickle', 'dill', 'cloudpickle')


def imported(path: pathlib.Path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno}: write the whole module name'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
  parts = path.relative_to(ROOT).parts
  own = parts[0].removesuffix('.py')
  allowed = ALLOWED.get(parts[0])
  if parts == FETCH:
    allowed = (*allowed, 'features')
  for name in imported(path):
    assert name.split('.')[0] not in RUNTIME_STRANGERS, f'{path} imports {name}'
    if not name.startswith('jaxinpaint.') or allowed is None:
      continue
    inner = name.removeprefix('jaxinpaint.')
    fine = inner.split('.')[0] == own or any(
      inner == a or inner.startswith(a + '.') for a in allowed
    )
    assert fine or inner == '__version__', f'{path} imports {name}; {own} may import {allowed}'
    if own == 'systems' and inner.startswith('systems.') and len(parts) > 2:
      assert inner.split('.')[1] in (parts[1], *SHARED), f'{path} imports another system: {name}'
    if parts[-1] == 'networks.py':
      assert inner.split('.')[0] in ('arrays', 'layers'), f'{path} imports {name}'


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
