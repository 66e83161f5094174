"""The door that `python -m jaxinpaint.evaluation.study` opens: `cli.study`."""

if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import study

  sys.exit(study.main())
