"""The best evaluated step of a run, and when a run ends because it gets no better.

The memory is part of every checkpoint. So a run that was killed and resumed ends at the same step,
with the same best one, as a run that was never stopped.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Best:
  """The best of the evaluations so far.

  Attributes:
    step: of the evaluation.
    value: of config.checkpoint.best there; larger is better.
    since: evaluations after it, none of which was better.
  """

  step: int
  value: float
  since: int = 0


def update(best: Best | None, step: int, value: float) -> Best:
  """The memory after an evaluation; a value that is not a number is never better."""
  if best is None:
    return Best(step, -math.inf if math.isnan(value) else value)
  if value > best.value:
    return Best(step, value)
  return dataclasses.replace(best, since=best.since + 1)


def stored(data: Mapping[str, Any]) -> Best | None:
  """The memory in a checkpoint's `data`; None: no evaluation yet, or of an earlier version."""
  return Best(**data['best']) if data.get('best') else None
