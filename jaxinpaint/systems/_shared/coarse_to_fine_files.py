"""Names of the layers of layers.coarse_to_fine in the authors' TensorFlow checkpoints."""

from collections.abc import Iterable

from jaxinpaint.weights import mapping

# Counters and the optimizers' averages.
TF_IGNORE = (r'/Adam(_\d+)?$', r'(^|/)beta[12]_power(_\d+)?$', r'^(lr|global_step)$')
_COARSE = (
  *('conv1', 'conv2_downsample', 'conv3', 'conv4_downsample', 'conv5', 'conv6'),
  *('conv7_atrous', 'conv8_atrous', 'conv9_atrous', 'conv10_atrous'),
)
_ATTEND = tuple(f'pm{name}' for name in (*_COARSE[:6], 'conv9', 'conv10'))
_DECODE = ('conv11', 'conv12', 'conv13_upsample', 'conv14', 'conv15_upsample', 'conv16', 'conv17')


def layers(*, attention: bool = True) -> tuple[tuple[str, str], ...]:
  """(stage, name) of every layer of a generator, with or without attention."""
  attend = _ATTEND if attention else ()
  second = (*(f'x{name}' for name in _COARSE), *attend, *(f'all{name}' for name in _DECODE))
  return (*(('coarse', n) for n in (*_COARSE, *_DECODE)), *(('refine', n) for n in second))


def path(stage: str, name: str, *, gated: bool) -> tuple[str, ...]:
  """Where a layer's parameters are: a gated convolution holds a plain one, the last has no gate."""
  return (stage, name, 'conv') if gated and not name.endswith('conv17') else (stage, name)


def tf_layer(key: str, network: str, place: tuple[str, ...]) -> list[mapping.Entry]:
  """Kernel and bias of one layer; TensorFlow's kernels have the same layout as ours."""
  return [mapping.Entry(f'{key}/{part}', network, (*place, part)) for part in ('kernel', 'bias')]


def tf_generator_entries(
  names: Iterable[tuple[str, str]], *, gated: bool
) -> tuple[mapping.Entry, ...]:
  """Entries of the generator's `layers` by TensorFlow's names."""
  entries = []
  for stage, name in names:
    inner = f'/{name}_conv' if name.endswith('_upsample') else ''
    key = f'inpaint_net/{name}{inner}'
    entries.extend(tf_layer(key, 'generator', path(stage, name, gated=gated)))
  return tuple(entries)
