"""What goes over the wire, for checks and for the OpenAPI document."""

import base64
import binascii
from typing import Annotated, Literal

import pydantic
from pydantic import BeforeValidator, Field, WithJsonSchema

from jaxinpaint.inference import blend as blend_lib
from jaxinpaint.serving import jobs
from jaxinpaint.serving.limits import LEAST_SIDE, WRITTEN


def _decoded(text: object) -> object:
  if not isinstance(text, str):
    return text
  try:
    return base64.b64decode(text, validate=True)  # pydantic's own skips what is not base64
  except (binascii.Error, ValueError) as error:
    raise ValueError(f'this is not base64: {error}') from error


Base64 = Annotated[
  bytes,
  BeforeValidator(_decoded),
  WithJsonSchema({'type': 'string', 'contentEncoding': 'base64'}),
]


class Options(pydantic.BaseModel):
  """How a hole is filled; the same options as of `jaxinpaint inpaint`."""

  model_config = pydantic.ConfigDict(extra='forbid')

  model: str | None = Field(None, description='A name of /api/v1/models; default the first one.')
  invert_mask: bool = Field(False, description='Black is the hole.')
  check_mask: bool = Field(True, description='Warn of a mask that looks inverted, empty or grey.')
  format: Literal[tuple(WRITTEN)] | None = Field(  # type: ignore[valid-type]
    None, description="Of the result; default the picture's own, or what Accept names."
  )
  blend: Literal[blend_lib.KINDS] = Field(  # type: ignore[valid-type]
    'none', description='poisson: fit what fills the hole to the colours around it.'
  )
  max_side: Annotated[int, Field(ge=LEAST_SIDE, le=16384)] | None = Field(
    None,
    description='Longer pictures are filled at this size, which a server limits; default: in '
    'windows around their holes.',
  )
  sample: int = Field(
    0, ge=0, lt=2**31, description='Number of the completion, of models that draw random numbers.'
  )
  exact_size: bool = Field(
    True,
    description='Fill at the size of the picture: the same pixels as `jaxinpaint inpaint`. False: '
    'pad it to one of few sizes, which saves compilations and may change what fills the hole.',
  )


class JsonRequest(Options):
  """Picture, mask and options as JSON."""

  image: Base64 = Field(description='The file of the picture in base64.')
  mask: Base64 = Field(description='The file of the mask in base64; white is the hole.')


class JsonAnswer(pydantic.BaseModel):
  """A repaired picture as JSON."""

  image: str = Field(
    description='The file of the repaired picture in base64.',
    json_schema_extra={'contentEncoding': 'base64'},
  )
  media_type: str
  model: str
  warnings: list[str] = Field(description='Sentences.')
  seconds: float = Field(description='That the worker took.')


class ProblemDocument(pydantic.BaseModel):
  """What is wrong, and what to do (RFC 9457)."""

  type: str
  title: str
  status: int
  detail: str


class JobStatus(pydantic.BaseModel):
  """Where a job is."""

  id: str
  state: Literal[jobs.STATES]  # type: ignore[valid-type]
  position: int | None = Field(None, description='Of a queued job: how many are before it.')
  seconds: float = Field(description='In this state so far.')
  estimate: float | None = Field(None, description='Seconds that this state may take, if known.')
  media_type: str | None = Field(None, description='Of the result.')
  warnings: list[str] = Field(default_factory=list, description='Sentences.')
  problem: ProblemDocument | None = Field(None, description='Of a job that failed.')


class ModelInfo(pydantic.BaseModel):
  """A model that can be named in a request."""

  name: str
  default: bool
  loaded: bool


class ModelList(pydantic.BaseModel):
  """All models, and the limits of this server."""

  models: list[ModelInfo]
  max_bytes: int = Field(description='Of a request.')
  max_megapixels: float = Field(description='Of a picture.')
  max_side: int | None = Field(description='The longest side that a model sees.')


class Health(pydantic.BaseModel):
  """Whether the server can work."""

  status: Literal['ok', 'loading', 'stuck', 'failed']
  version: str
  waiting: int
