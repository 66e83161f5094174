"""Makes `python -m jaxinpaint.data.masks` work; the command is `cli.masks`."""

if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import masks

  sys.exit(masks.main())
