"""What the tests of evaluations share: flags by their names, and rows on images in one line."""

import argparse

from jaxinpaint.cli import evaluate
from jaxinpaint.evaluation import evaluate as loop
from jaxinpaint.evaluation.spec import EvaluationSpec, MaskedImages


def flags(**given):
  """The flags of `jaxinpaint evaluate`, all at their defaults but these."""
  parsed = vars(evaluate._parser().parse_args([]))
  assert given.keys() <= parsed.keys()
  return argparse.Namespace(**parsed | given)


def measured(rows, images, masks, protocol, *, count=None, examples=4, **how):
  """`evaluate` of an `EvaluationSpec` with these fields."""
  on = MaskedImages(images, masks, count)
  return loop.evaluate(EvaluationSpec(rows, on, protocol, **how), examples=examples, progress=False)
