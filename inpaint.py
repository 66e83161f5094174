"""Fills the holes of image files: the command `jaxinpaint inpaint`, from a clone."""

import sys

from jaxinpaint.cli import inpaint

if __name__ == '__main__':
  sys.exit(inpaint.main())
