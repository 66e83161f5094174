"""The door that `python -m jaxinpaint.evaluation.resources` opens: `cli.resources`."""

if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import resources

  sys.exit(resources.main())
