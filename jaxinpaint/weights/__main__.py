"""The door that `python -m jaxinpaint.weights` opens; the command is `cli.weights`."""

if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import weights

  sys.exit(weights.main())
