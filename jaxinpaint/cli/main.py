"""The command `jaxinpaint`: it loads the module of the one command that is called, and no jax."""

import importlib
import sys
from collections.abc import Sequence

import jaxinpaint
from jaxinpaint.cli import command_line

DESCRIPTION = """Image inpainting in JAX: trains, evaluates and applies the published systems.

  jaxinpaint train --config quickstart
  jaxinpaint evaluate --workdir runs/quickstart
  jaxinpaint inpaint --workdir runs/quickstart --image photo.jpg --mask hole.png --output out.png

commands:"""

# {word: (module of jaxinpaint.cli, what it does)}.
COMMANDS = {
  'train': ('train', 'train a system, or go on with a run'),
  'evaluate': ('evaluate', 'measure systems and fills on the same images and holes'),
  'inpaint': ('inpaint', 'fill the holes of image files'),
  'export': ('export', 'a system as one file for other programs: StableHLO, ONNX, weights'),
  'serve': ('serve', 'a page to repair photographs on, and an HTTP API'),
  'masks': ('masks', 'write sets of masks as files; say what a folder of masks holds'),
  'weights': ('weights', 'import published weights; look into weight files'),
  'prepare': ('prepare', 'download and prepare a data set of tensorflow-datasets'),
  'combine': ('combine', 'join reports that were measured apart into one comparison'),
  'resources': ('resources', 'measure what systems cost: parameters, time, memory, FLOPs'),
  'study': ('study', "the survey's study, with its fourteen tables"),
  'new-system': ('new_system', 'in a clone: write the files of a new system'),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv == ['--version']:
    print(f'jaxinpaint {jaxinpaint.__version__}')
    return 0
  commands = {word: (about, _later(module)) for word, (module, about) in COMMANDS.items()}
  return command_line.choose('jaxinpaint', DESCRIPTION, commands, argv)


def _later(module: str) -> command_line.Command:
  """The command of a module that is imported when it is called."""
  return lambda argv: importlib.import_module(f'jaxinpaint.cli.{module}').main(argv)
