"""A pickle interpreter that can build plain containers and describe tensors, and nothing else.

Python's unpickler calls whatever a file names. This one has no import and no call: a global is a
name looked up in a short table, and applying it runs one of the few functions below on plain
values. A name that is not in the table is refused before anything is built from it.
Opcodes are decoded by `pickletools.genops`, which only reads.

A TorchScript archive also holds objects whose classes it defines itself (`__torch__.*`). They
become `Object`s: names with values, without a class and without code.
"""

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxinpaint.weights.formats.tensors import (
  DTYPES,
  STORAGES,
  LazyTensor,
  UnsafeFileError,
  lazy_tensor,
)

Persistent = Callable[[Any], Any]
_PLAIN_KEYS = (str, bytes, int, float, bool, type(None))
_SCRIPT_CLASSES = '__torch__.'
_BUILDS_OBJECTS = (
  'the file uses the pickle opcode {}, which builds arbitrary objects; only tensors and plain '
  'containers are read'
)
_NUMPY_CODES = frozenset('f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1'.split())


class Global:
  """A name from the table, not yet applied."""

  def __init__(self, name: str):
    self.name = name


class Object:
  """An object of a class that a TorchScript archive defines: nothing but named attributes."""

  def __init__(self, name: str):
    self.name = name
    self.attributes: dict[str, Any] | None = None  # None: none were set yet

  def set(self, state: Any) -> None:
    """Takes a dict as the attributes, once; raises UnsafeFileError for anything else."""
    if type(state) is not dict:
      raise UnsafeFileError(
        f'an object of {self.name[:200]!r} keeps its state in a form of its own '
        f'({type(state).__name__}), not as attributes'
      )
    if self.attributes is not None:
      raise UnsafeFileError(f'the attributes of an object of {self.name[:200]!r} are set twice')
    # PyTorch allows no other names; with a dot one could stand for an attribute of another object.
    for key in state:
      if type(key) is not str or not key or '.' in key:
        raise UnsafeFileError(f'an object has an attribute of the name {str(key)[:80]!r}')
    self.attributes = dict(state)


class _NumpyDtype:
  """numpy.dtype as it is pickled: a code, then its byte order by BUILD."""

  def __init__(self, code: str):
    self.code, self.order = code, '='

  def scalar(self, data: Any) -> Any:
    dtype = np.dtype(self.order + self.code)
    if type(data) is not bytes or len(data) != dtype.itemsize:
      raise UnsafeFileError('a numpy scalar has no proper value')
    return np.frombuffer(data, dtype)[0].item()


def run(file: Any, persistent: Persistent | None = None, *, script: bool = False) -> Any:
  """Interprets one pickle from the file's position; the file then stands after its STOP.

  Args:
    file: binary file whose read and readline never return more than is there (BytesIO, mmap).
    persistent: (persistent id) -> value; None: persistent ids are refused.
    script: it is of a TorchScript archive, which may hold `Object`s.

  Returns:
    dict, list, tuple, str, bytes, numbers, None, `LazyTensor`s and `Object`s.

  Raises:
    UnsafeFileError: the pickle asks for anything else, or is damaged.
  """
  machine = _Machine(persistent, script)
  try:
    for opcode, argument, _ in pickletools.genops(file):
      if opcode.name == 'STOP':
        return machine.result()
      step = _OPCODES.get(opcode.name)
      if step is None:
        raise UnsafeFileError(_BUILDS_OBJECTS.format(opcode.name))
      step(machine, argument)
  except UnsafeFileError:
    raise
  except (ValueError, IndexError, OverflowError, MemoryError, UnicodeError) as error:
    raise UnsafeFileError(f'the pickle inside the file is damaged: {error}') from error
  raise UnsafeFileError('the pickle inside the file is damaged: it has no end')


class _Machine:
  def __init__(self, persistent: Persistent | None, script: bool):
    self.stack: list = []
    self.marked: list[list] = []
    self.memo: dict[int, Any] = {}
    self.persistent = persistent
    self.script = script
    self.functions = _APPLY | _SCRIPT_APPLY if script else _APPLY

  def push(self, value: Any) -> None:
    self.stack.append(value)

  def mark(self) -> None:
    self.marked.append(self.stack)
    self.stack = []

  def pop_mark(self) -> list:
    items, self.stack = self.stack, self.marked.pop()
    return items

  def result(self) -> Any:
    if len(self.stack) != 1 or self.marked:
      raise UnsafeFileError('the pickle inside the file is damaged: it does not end on one value')
    return self.stack[0]

  def put(self, key: int) -> None:
    self.memo[key] = self.stack[-1]

  def get(self, key: int) -> None:
    if key not in self.memo:
      raise UnsafeFileError('the pickle inside the file is damaged: it recalls what it never kept')
    self.push(self.memo[key])

  def extend(self, items: list) -> None:
    if type(self.stack[-1]) is not list:
      raise UnsafeFileError('the file appends to what is no list')
    self.stack[-1].extend(items)

  def update(self, items: list) -> None:
    if type(self.stack[-1]) is not dict:
      raise UnsafeFileError('the file sets items of what is no dict')
    self.stack[-1].update(_pairs(items))

  def find(self, name: str) -> None:
    known = name in self.functions or name in STORAGES or name in DTYPES
    if not known and not (self.script and name.startswith(_SCRIPT_CLASSES)):
      raise UnsafeFileError(
        f'the file asks for {name[:200]!r}; only tensors and plain containers are read, and no '
        'code of a file is ever run. Save the bare state_dict with PyTorch, or use safetensors.'
      )
    self.push(Global(name))

  def find_on_stack(self) -> None:
    name, module = self.stack.pop(), self.stack.pop()
    if type(name) is not str or type(module) is not str:
      raise UnsafeFileError('the file asks for a global by something that is no name')
    self.find(f'{module}.{name}')

  def apply(self) -> None:
    arguments, function = self.stack.pop(), self.stack.pop()
    if not isinstance(function, Global) or function.name not in self.functions:
      raise UnsafeFileError('the file calls something that is not a constructor of tensors')
    if type(arguments) is not tuple:
      raise UnsafeFileError(f'the file calls {function.name} with no proper arguments')
    try:
      self.push(self.functions[function.name](*arguments))
    except TypeError as error:  # a wrong number of arguments
      raise UnsafeFileError(f'the file calls {function.name} wrongly: {error}') from error

  def new(self) -> None:
    if not self.script:
      raise UnsafeFileError(_BUILDS_OBJECTS.format('NEWOBJ'))
    arguments, kind = self.stack.pop(), self.stack.pop()
    if not isinstance(kind, Global) or not kind.name.startswith(_SCRIPT_CLASSES):
      raise UnsafeFileError('the file makes an object (NEWOBJ) of what is no class of its own')
    if arguments != ():
      raise UnsafeFileError(f'the file makes an object of {kind.name[:200]!r} with arguments')
    self.push(Object(kind.name))

  def build(self) -> None:
    state, target = self.stack.pop(), self.stack[-1]
    if isinstance(target, Object):
      target.set(state)
    elif isinstance(target, _NumpyDtype):
      if type(state) is not tuple or len(state) < 2 or state[1] not in ('<', '>', '=', '|'):
        raise UnsafeFileError('a numpy dtype has no proper byte order')
      target.order = state[1]
    elif type(target) is not dict:
      # An OrderedDict may carry attributes (`_metadata` of a state dict): they are dropped.
      raise UnsafeFileError(f'the file sets attributes of a {type(target).__name__}')

  def recall(self) -> None:
    if self.persistent is None:
      raise UnsafeFileError('the pickle inside the file refers to data where there can be none')
    self.push(self.persistent(self.stack.pop()))


def _pairs(items: list) -> dict:
  if len(items) % 2:
    raise UnsafeFileError('the pickle inside the file is damaged: a key has no value')
  for key in items[::2]:
    if type(key) not in _PLAIN_KEYS:
      raise UnsafeFileError(f'the file has a dict key of type {type(key).__name__}')
  return dict(zip(items[::2], items[1::2], strict=True))


def _ordered_dict(pairs: Any = ()) -> dict:
  """OrderedDict() or, as Python 2 wrote it, OrderedDict([[key, value], ...])."""
  if type(pairs) not in (list, tuple) or any(
    type(p) not in (list, tuple) or len(p) != 2 for p in pairs
  ):
    raise UnsafeFileError('an OrderedDict has no proper items')
  return _pairs([x for pair in pairs for x in pair])


def _tensor(storage, offset, shape, stride, *_ignored) -> LazyTensor:
  return lazy_tensor(storage, offset, shape, stride)


def _tensor_v3(storage, offset, shape, stride, _grad, _hooks, dtype, *_ignored) -> LazyTensor:
  if not isinstance(dtype, Global) or dtype.name not in DTYPES:
    raise UnsafeFileError('a tensor has no proper dtype')
  return lazy_tensor(storage, offset, shape, stride, DTYPES[dtype.name])


def _parameter(data, *_ignored) -> LazyTensor:
  if not isinstance(data, LazyTensor):
    raise UnsafeFileError(f'a parameter is made of a {type(data).__name__}')
  return data


def _size(shape=()) -> tuple:
  if type(shape) not in (tuple, list):
    raise UnsafeFileError('a torch.Size is made of no tuple')
  return tuple(shape)


def _device(kind, index=None) -> str:
  if type(kind) is not str or type(index) not in (int, type(None)):
    raise UnsafeFileError('a torch.device has no proper name')
  return kind if index is None else f'{kind}:{index}'


def _numpy_dtype(code, *_flags) -> _NumpyDtype:
  if type(code) is not str or code not in _NUMPY_CODES:
    raise UnsafeFileError(f'the file asks for a numpy scalar of dtype {str(code)[:40]!r}')
  return _NumpyDtype(code)


def _numpy_scalar(dtype, data) -> Any:
  if not isinstance(dtype, _NumpyDtype):
    raise UnsafeFileError('a numpy scalar has no proper dtype')
  return dtype.scalar(data)


def _latin1(text, encoding) -> bytes:
  """How protocol 2 writes bytes: _codecs.encode(text, 'latin1')."""
  if type(text) is not str or encoding not in ('latin1', 'latin-1'):
    raise UnsafeFileError('the file calls _codecs.encode for something other than bytes')
  return text.encode('latin-1')


_APPLY: dict[str, Callable[..., Any]] = {
  'collections.OrderedDict': _ordered_dict,
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_tensor_v3': _tensor_v3,
  'torch._utils._rebuild_parameter': _parameter,
  'torch._utils._rebuild_parameter_with_state': _parameter,
  'torch.Size': _size,
  'torch.device': _device,
  'numpy.dtype': _numpy_dtype,
  'numpy.core.multiarray.scalar': _numpy_scalar,
  'numpy._core.multiarray.scalar': _numpy_scalar,
  '_codecs.encode': _latin1,
}


def _typed(value, kind) -> Any:
  """A list or dict with the type of its items, which is dropped."""
  if type(value) not in (list, dict) or type(kind) is not str:
    raise UnsafeFileError('the file gives a type to what is no list and no dict')
  return value


def _list(values) -> list:
  if type(values) is not list:
    raise UnsafeFileError('a list of one type is made of no list')
  return values


# What a TorchScript archive calls besides.
_SCRIPT_APPLY: dict[str, Callable[..., Any]] = {
  'torch.jit._pickle.restore_type_tag': _typed,
  'torch.jit._pickle.build_intlist': _list,
  'torch.jit._pickle.build_doublelist': _list,
  'torch.jit._pickle.build_boollist': _list,
  'torch.jit._pickle.build_tensorlist': _list,
}


def _python2_text(machine: _Machine, text: str) -> None:
  """Byte strings of Python 2 are its names and text; pickletools gives them as Latin-1."""
  machine.push(text.encode('latin-1').decode('utf-8'))


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
  def step(machine: _Machine, _: Any) -> None:
    items = [machine.stack.pop() for _ in range(count)]
    machine.push(tuple(reversed(items)))

  return step


def _set_item(machine: _Machine, _: Any) -> None:
  value, key = machine.stack.pop(), machine.stack.pop()
  machine.update([key, value])


def _append(machine: _Machine, _: Any) -> None:
  value = machine.stack.pop()
  machine.extend([value])


def _pop(machine: _Machine, _: Any) -> None:
  if machine.stack:
    machine.stack.pop()
  else:
    machine.pop_mark()


_push = _Machine.push
_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
  'PROTO': lambda m, _: None,
  'FRAME': lambda m, _: None,
  'MARK': lambda m, _: m.mark(),
  'POP': _pop,
  'POP_MARK': lambda m, _: m.pop_mark() and None,
  'DUP': lambda m, _: m.push(m.stack[-1]),
  'NONE': lambda m, _: m.push(None),
  'NEWTRUE': lambda m, _: m.push(True),
  'NEWFALSE': lambda m, _: m.push(False),
  **{
    name: _push
    for name in (
      'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE '
      'SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8'
    ).split()
  },
  **{name: _python2_text for name in ('STRING', 'BINSTRING', 'SHORT_BINSTRING')},
  'EMPTY_LIST': lambda m, _: m.push([]),
  'LIST': lambda m, _: m.push(m.pop_mark()),
  'APPEND': _append,
  'APPENDS': lambda m, _: m.extend(m.pop_mark()),
  'EMPTY_TUPLE': lambda m, _: m.push(()),
  'TUPLE': lambda m, _: m.push(tuple(m.pop_mark())),
  'TUPLE1': _tuple_of(1),
  'TUPLE2': _tuple_of(2),
  'TUPLE3': _tuple_of(3),
  'EMPTY_DICT': lambda m, _: m.push({}),
  'DICT': lambda m, _: m.push(_pairs(m.pop_mark())),
  'SETITEM': _set_item,
  'SETITEMS': lambda m, _: m.update(m.pop_mark()),
  **{name: lambda m, key: m.put(key) for name in ('PUT', 'BINPUT', 'LONG_BINPUT')},
  'MEMOIZE': lambda m, _: m.put(len(m.memo)),
  **{name: lambda m, key: m.get(key) for name in ('GET', 'BINGET', 'LONG_BINGET')},
  'GLOBAL': lambda m, name: m.find(name.replace(' ', '.', 1)),
  'STACK_GLOBAL': lambda m, _: m.find_on_stack(),
  'REDUCE': lambda m, _: m.apply(),
  'NEWOBJ': lambda m, _: m.new(),
  'BUILD': lambda m, _: m.build(),
  'BINPERSID': lambda m, _: m.recall(),
}
