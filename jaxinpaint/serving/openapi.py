"""The OpenAPI 3.1 document of the API, and a page that shows it without scripts or network."""

import functools
from typing import Any

import jinja2
import pydantic.json_schema

import jaxinpaint
from jaxinpaint.serving import schemas
from jaxinpaint.serving.limits import MEDIA_TYPES, Limits
from jaxinpaint.web import problems

_SHOWN = (
  schemas.Options,
  schemas.JsonRequest,
  schemas.JsonAnswer,
  schemas.ProblemDocument,
  schemas.JobStatus,
  schemas.ModelInfo,
  schemas.ModelList,
  schemas.Health,
)
_ID = {'name': 'id', 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
_BAD_BODY = (
  *('bad-request', 'bad-picture', 'unknown-model', 'too-slow', 'too-large', 'wrong-type'),
  *('too-many', 'ending'),
)
_BAD_WORK = ('failure', 'model-failure', 'time-limit')


def document(limits: Limits) -> dict[str, Any]:
  """The document as JSON's types."""
  inputs = [(model, 'validation') for model in _SHOWN]
  _, defined = pydantic.json_schema.models_json_schema(
    inputs, ref_template='#/components/schemas/{model}'
  )
  definitions = defined['$defs']
  binary = {'type': 'string', 'format': 'binary'}
  multipart = {
    'type': 'object',
    'required': ['image', 'mask'],
    'properties': {
      'image': binary | {'description': 'The file of the picture.'},
      'mask': binary | {'description': 'The file of the mask; white is the hole.'},
      **definitions['Options']['properties'],
    },
  }
  body = {
    'required': True,
    'content': {
      'multipart/form-data': {'schema': multipart},
      'application/json': _reference('JsonRequest'),
    },
  }
  picture = {kind: {'schema': binary} for kind in MEDIA_TYPES.values()}
  answer = lambda about, name: {
    'description': about,
    'content': {'application/json': _reference(name)},
  }
  json_answer = {'application/json': _reference('JsonAnswer')}
  repaired = {'description': 'The repaired picture.', 'content': picture}
  limit = f'At most {limits.bytes / 2**20:g} MiB and {limits.megapixels:g} megapixels.'
  paths = {
    '/api/v1/inpaint': {
      'post': _operation(
        f'Repair a picture and wait for it. {limit}',
        {'200': repaired | {'content': picture | json_answer}},
        _BAD_BODY + _BAD_WORK,
        requestBody=body,
      )
    },
    '/api/v1/jobs': {
      'post': _operation(
        f'Hand in a picture; Location says where its state is. {limit}',
        {'202': answer('Accepted.', 'JobStatus')},
        _BAD_BODY,
        requestBody=body,
      )
    },
    '/api/v1/jobs/{id}': {
      'get': _operation(
        'The state of a job.',
        {'200': answer('Its state.', 'JobStatus')},
        ('not-found',),
        parameters=[_ID],
      ),
      'delete': _operation(
        'Cancel a job, and forget its result.',
        {'204': {'description': 'It is gone.'}},
        ('not-found',),
        parameters=[_ID],
      ),
    },
    '/api/v1/jobs/{id}/events': {
      'get': _operation(
        'The states of a job while they change, as server-sent events; the last one is its end.',
        {
          '200': {
            'description': 'The data of each event is a JobStatus.',
            'content': {'text/event-stream': _reference('JobStatus')},
          }
        },
        ('not-found',),
        parameters=[_ID],
      )
    },
    '/api/v1/jobs/{id}/result': {
      'get': _operation(
        'The repaired picture, once: it is forgotten when it has been sent.',
        {'200': repaired},
        ('bad-picture', 'not-found', 'not-done', 'cancelled', *_BAD_WORK),
        parameters=[_ID],
      )
    },
    '/api/v1/models': {
      'get': _operation(
        'The models, and the limits.', {'200': answer('All models.', 'ModelList')}, ()
      )
    },
    '/api/v1/health': {
      'get': _operation(
        'Whether the server can work; needs no token.',
        {'200': answer('It can.', 'Health'), '503': answer('Not now.', 'Health')},
        (),
      )
    },
    '/api/v1/openapi.json': {
      'get': _operation('This document.', {'200': {'description': 'OpenAPI 3.1.'}}, ())
    },
    '/metrics': {
      'get': _operation(
        "Counters and gauges in Prometheus' text format.",
        {'200': {'description': 'The text.', 'content': {'text/plain': {}}}},
        (),
      )
    },
  }
  return {
    'openapi': '3.1.0',
    'info': {
      'title': 'jaxinpaint',
      'version': jaxinpaint.__version__,
      'description': 'Fills holes of pictures. White in a mask is the hole.',
    },
    'paths': paths,
    'components': {
      'schemas': definitions,
      'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer'}},
    },
    'security': [{'token': []}, {}],
  }


def _operation(
  summary: str, responses: dict[str, Any], kinds: tuple[str, ...], **more: Any
) -> dict[str, Any]:
  by_status: dict[str, list[str]] = {}
  for kind in kinds:
    status, title = problems.KINDS[kind]
    by_status.setdefault(str(status), []).append(title)
  content = {problems.CONTENT_TYPE: _reference('ProblemDocument')}
  refused = {
    status: {'description': '; '.join(titles) + '.', 'content': content}
    for status, titles in sorted(by_status.items())
  }
  return {'summary': summary, **more, 'responses': {**responses, **refused}}


def _reference(name: str) -> dict[str, Any]:
  return {'schema': {'$ref': f'#/components/schemas/{name}'}}


@functools.cache
def _template() -> jinja2.Template:
  loader = jinja2.PackageLoader('jaxinpaint.serving', 'page')
  templates = jinja2.Environment(
    loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
  )
  templates.filters['kind'] = _kind
  return templates.get_template('docs.html')


def _kind(schema: dict[str, Any]) -> str:
  """A schema's type in words."""
  if 'enum' in schema:
    return ', '.join(map(str, schema['enum']))
  if 'anyOf' in schema:
    return ' or '.join(_kind(one) for one in schema['anyOf'] if one.get('type') != 'null')
  if '$ref' in schema:
    return schema['$ref'].rpartition('/')[2]
  kind = schema.get('type', '')
  if 'items' in schema:
    return f'{kind} of {_kind(schema["items"])}'
  return f'file ({schema["format"]})' if 'format' in schema else kind


def page(content: dict[str, Any]) -> str:
  """The HTML page of a document."""
  return _template().render(document=content, kinds=problems.KINDS)
