"""`python -m jaxinpaint` is the command `jaxinpaint`."""

if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import main

  sys.exit(main.main())
