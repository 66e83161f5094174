"""The config that `--config` names: by its name, or as a path; with the fields that flags set."""

import argparse
import difflib
import importlib
import importlib.util
import pathlib
import re
import sys
import traceback
from typing import TYPE_CHECKING

from jaxinpaint.cli.command_line import Parser, path, sentence

if TYPE_CHECKING:
  from ml_collections import ConfigDict

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'


def names() -> list[str]:
  """Those of the configs that come with the library."""
  return sorted(p.stem for p in FOLDER.glob('*.py') if not p.name.startswith('_'))


def find(text: str) -> str:
  """'quickstart:quicktest' or '~/mine.py' -> the config's file, with what stands after the colon.

  Raises:
    FileNotFoundError: neither a file nor a name; the message lists near names.
  """
  text, colon, variant = path(text).partition(':')
  file = pathlib.Path(text)
  if not file.is_file():
    named = FOLDER / f'{text}.py'
    if text not in names():
      near = difflib.get_close_matches(file.stem, names(), n=5) or names()
      raise FileNotFoundError(
        f'--config {text}: there is no such file, nor a config of this name; by name there are '
        f'{", ".join(near)}'
      )
    file = named
  return f'{file}{colon}{variant}'


def name(text: str) -> str:
  """'configs/quickstart.py:quicktest' -> 'quickstart-quicktest', 'finetune:a/b' -> 'finetune-b'."""
  file, _, variant = text.partition(':')
  variant = pathlib.PurePath(variant).name.removesuffix('.safetensors')  # weights have a path
  return '-'.join(filter(None, [pathlib.Path(file).stem, variant]))


def load(
  parser: Parser,
  given: argparse.Namespace,
  section: str = 'system',
  stored: 'ConfigDict | None' = None,
) -> 'ConfigDict | None':
  """The config of --config with its fields as the flags say; None where no config is given.

  A config that is not there, one of another command, a wrong field or a wrong value ends the
  process as a wrong flag does.

  Args:
    parser: of the command.
    given: its flags.
    section: a field that every config of this command has.
    stored: takes the place of --config where that is not given: the config of a run.
  """
  if given.config is None and stored is None:
    if given.fields:
      parser.error(f'{given.fields[0]} is a field of a config: give --config, too')
    return None
  from absl import flags
  from ml_collections import config_flags

  _allow_old_imports()
  name = f'--config {given.config}' if given.config else 'the config of the run'
  values, words = flags.FlagValues(), list(given.fields)
  try:
    if given.config:
      words.insert(0, f'--config={find(given.config)}')
      config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=words)
    else:
      config_flags.DEFINE_config_dict('config', stored, flag_values=values, sys_argv=words)
    left = values([parser.prog, *words])
    if left[1:]:
      raise ValueError(f'unexpected argument {left[1]!r}')
    config = values.config.lock()  # raises what was put off: a file that is not readable
    if section not in config:
      raise ValueError(f'{name} is of another command: it has no field {section}')
    return config
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    parser.error(_in_our_words(sentence(error), name))
  except Exception as error:  # the file is a program, so it can fail in any way
    place = traceback.extract_tb(error.__traceback__)[-1]
    named = isinstance(error, SyntaxError)  # its message has the place
    where = '' if named else f' ({place.filename}, line {place.lineno})'
    parser.error(f'{name} cannot be run as Python: {sentence(error)}{where}')


def row(path: str) -> 'str | ConfigDict':
  """The path of a row whose cost is measured, or the config that 'config:NAME' names.

  Raises:
    ValueError: of `named`.
  """
  return named(path.removeprefix('config:')) if path.startswith('config:') else path


def named(text: str) -> 'ConfigDict':
  """The experiment 'NAME' or 'NAME:VARIANT' of the library, with the fields as its file says.

  Raises:
    ValueError: there is none of this name or variant, or it is no experiment of a system.
  """
  name, _, variant = text.partition(':')
  if name not in names():
    near = difflib.get_close_matches(name, names(), n=5) or names()
    raise ValueError(f'there is no config of the name {name!r}; there are {", ".join(near)}')
  module = importlib.import_module(f'jaxinpaint.configs.{name}')
  try:
    config = module.get_config(*filter(None, [variant]))
  except TypeError as error:  # a config without variants
    raise ValueError(_in_our_words(sentence(error), f'config {text}')) from error
  if 'system' not in config:
    raise ValueError(f'config {text} is of another command: it has no field system')
  return config


def _in_our_words(message: str, config: str) -> str:
  """What is wrong with a config, '--config NAME', without ml_collections' wrapping."""
  unknown = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', message)
  if unknown:
    return f'{config} has no field {unknown[2]}; is {unknown[1]} meant?'
  unknown = re.fullmatch(r'[\'"]+(\w+)[\'"]+', message)
  if unknown:
    return f'{config} has no field {unknown[1]}'
  message = re.sub(r'invalid literal for int.*: (.*)', r'\1 must be a whole number', message)
  if re.search("module '.*' has no attribute 'get_config'", message):
    return f'{config} is no config: it has no function get_config'
  if re.search(r'get_config\(\) takes 0 positional', message):
    return f'{config}: this config has no variants: leave out the colon and what follows'
  wrapped = r'^flag --config=.*: Error whilst parsing config file: \w+: '
  return re.sub(wrapped, f'{config}: ', message)


def _allow_old_imports() -> None:
  """Configs that people wrote for version 0.1 say `from configs import _base`, in any folder."""
  if importlib.util.find_spec('configs') is None:
    import jaxinpaint.configs

    sys.modules['configs'] = jaxinpaint.configs
