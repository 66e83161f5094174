"""Measures systems beside classical fills: the command `jaxinpaint evaluate`, from a clone."""

import sys

from jaxinpaint.cli import evaluate

if __name__ == '__main__':
  sys.exit(evaluate.main())
