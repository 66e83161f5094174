"""Configs of earlier versions, converted to the fields of this version.

A config is stored in a run's config.json, in each of its checkpoints, and in the JSON of a weights
file. Its `version` says which fields it has; without one it is version 0. Code that reads a stored
config calls `migrate` at once, so that all other code only knows the fields of this version. This
module is on a low floor because its callers are on many: weights, systems, training, cost.

A stored config is converted in two steps:
  1. all `MIGRATIONS` of later versions change it, in order;
  2. each field that is still missing gets its default; a field that is then unknown is refused.

What to do when you change a config field:
  - You add a field, and its default means "as it was": nothing.
  - You add a field, and its default changes what older runs do: add a migration that gives older
    configs the value which means "as it was" (`set_default`).
  - You change the default of a field: add a migration that gives older configs the old default
    (`set_default`). Configs from before the field existed do not have it.
  - You rename a field: add a migration (`rename`).
  - You remove a field: add a migration (`remove`) with the value that means "not used".
  - You give a value another meaning: add a migration that rewrites the value.
A migration that was released is never edited. tests/stored holds files of every released version;
they must load, continue and predict as they did.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

import jaxinpaint

# Sections whose entries are named by the experiment: they have no defaults.
_FREE = ('optimizers',)


class ConfigVersionError(ValueError):
  """A stored config cannot be converted to this version; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Migration:
  """One change of the fields.

  Attributes:
    version: the first version with this change; it is applied to configs of earlier versions.
    change: edits a config, nested dicts, in place; may raise ConfigVersionError.
    system: the only system that it applies to; '': all systems.
  """

  version: int
  change: Callable[[dict[str, Any]], None]
  system: str = ''


def set_default(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
  """A change that sets `field`, such as 'loss.l1_hole', to this value if a config lacks it.

  Args:
    field: is set only if the config has its section.
    value: a value, or a function of the config if the value depends on other fields.
  """

  def change(config: dict[str, Any]) -> None:
    section, name = _section(config, field)
    if section is not None and name not in section:
      section[name] = value(config) if callable(value) else value

  return change


def rename(field: str, name: str) -> Callable[[dict[str, Any]], None]:
  """A change that moves the value of `field` to the field `name`, both as 'loss.l1_hole'."""

  def change(config: dict[str, Any]) -> None:
    section, old = _section(config, field)
    if section is not None and old in section:
      value = section.pop(old)
      *path, last = name.split('.')
      place = config
      for part in path:
        place = place.setdefault(part, {})
      place[last] = value

  return change


def remove(field: str, unused: Any, reason: str) -> Callable[[dict[str, Any]], None]:
  """A change that removes `field`, and refuses configs that use it.

  Args:
    field: such as 'loss.l1_hole'.
    unused: the value with which the field had no effect.
    reason: a clause for the error: what to do, or which version to use.
  """

  def change(config: dict[str, Any]) -> None:
    section, name = _section(config, field)
    if section is None or name not in section:
      return
    value = section.pop(name)
    if value != unused:
      raise ConfigVersionError(
        f'the stored config has {field}={value!r}, which jaxinpaint {jaxinpaint.__version__} no '
        f'longer has: {reason}'
      )

  return change


MIGRATIONS: tuple[Migration, ...] = (
  # 1: configs have versions. Before, the critic had no size of its own but used the structure's.
  Migration(1, set_default('model.critic_size', lambda c: c['model']['size']), system='lfr'),
  # 2: keys of LFR's attention are all cells outside the hole, and its stand-in has a switch.
  Migration(2, set_default('model.attention_keys', 'clear'), system='lfr'),
  Migration(
    2, set_default('model.stand_in', lambda c: not c['model']['stylegan_file']), system='lfr'
  ),
)
VERSION = 2


def migrate(stored: Mapping[str, Any], defaults: Callable[[str], ConfigDict]) -> ConfigDict:
  """A stored config with the fields of this version; unchanged if it has them already.

  Args:
    stored: from a file or a checkpoint: a mapping, or a ConfigDict. It is not changed.
    defaults: (system) -> the config with all fields: `systems.default_config` if only the networks
      are needed, `training.config.base` for a run. Sections that it lacks are not changed.

  Returns:
    A config of version `VERSION`. Lists become tuples: JSON has no tuples, and flax modules need
    hashable fields.

  Raises:
    ConfigVersionError: the config is of a newer version, or has a field that was removed or is
      unknown.
    ValueError: no such system.
  """
  config = tuples(stored.to_dict() if isinstance(stored, ConfigDict) else dict(stored))
  version = config.get('version', 0)
  if isinstance(version, bool) or not isinstance(version, int) or version < 0:
    raise ConfigVersionError(f'config.version {version!r} must be an integer of at least 0')
  if version > VERSION:
    raise ConfigVersionError(
      f'the stored config is of version {version}; jaxinpaint {jaxinpaint.__version__} knows '
      f'versions up to {VERSION}: update jaxinpaint'
    )
  for migration in MIGRATIONS:
    if migration.version > version and migration.system in ('', config.get('system')):
      migration.change(config)
  config['version'] = VERSION
  known = defaults(config.get('system', '')).to_dict()
  for name, value in known.items():
    if name not in config:
      config[name] = value
    elif isinstance(value, dict) and name not in _FREE:
      _complete(config[name], value, name)
  return ConfigDict(config)


def _complete(section: Any, known: dict[str, Any], where: str) -> None:
  """Adds the missing fields to a section, in place; refuses unknown ones."""
  if not isinstance(section, dict):
    raise ConfigVersionError(f'the stored config has {where}={section!r}, which must be a section')
  unknown = sorted(set(section) - set(known))
  if unknown:
    raise ConfigVersionError(
      f'the stored config has {where}.{unknown[0]}={section[unknown[0]]!r}, which jaxinpaint '
      f'{jaxinpaint.__version__} does not know (config.{where} has: {", ".join(sorted(known))}): '
      'a newer version wrote it, or it was edited; update jaxinpaint, or take the field out'
    )
  for name, value in known.items():
    if name not in section:
      section[name] = value
    elif isinstance(value, dict):
      _complete(section[name], value, f'{where}.{name}')


def _section(config: dict[str, Any], field: str) -> tuple[dict[str, Any] | None, str]:
  """(the section of a field, None if the config lacks it; the field's own name)."""
  *path, name = field.split('.')
  section: Any = config
  for part in path:
    section = section.get(part)
    if not isinstance(section, dict):
      return None, name
  return section, name


def tuples(value: Any) -> Any:
  """Lists of a config as tuples: JSON has none, and flax modules want hashable fields."""
  if isinstance(value, Mapping):
    return {k: tuples(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return tuple(tuples(v) for v in value)
  return value
