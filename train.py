"""Trains a system: the command `jaxinpaint train`, from a clone of the repository."""

import sys

from jaxinpaint.cli import train

if __name__ == '__main__':
  sys.exit(train.main())
