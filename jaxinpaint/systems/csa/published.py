"""CSA's checkpoints: PyTorch files of KumapowerLIU/CSA-inpainting, one for each network.

EPOCH_net_P.pth is the rough network, EPOCH_net_G.pth the refining one, EPOCH_net_D.pth and
EPOCH_net_F.pth are the critics of pictures and of features. Each is a plain state dict, in whose
keys each level of a U-Net is nested in the one outside of it. P and G have keys in common, D and F
too, so whose a file is is told by the shapes. The authors link no files.
"""

from typing import Any

from jaxinpaint.weights import mapping
from jaxinpaint.weights.mapping import conv, conv_transpose, norm

_ATTENTION_LEVEL = 3


def rough_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the rough network."""
  levels, at, entries = model.get('levels', 8), 'model.model', []

  def add(kind, key, name):
    entries.extend(kind(f'{at}.{key}', 'rough', (name,)))

  add(conv, 0, 'down1')
  add(conv_transpose, 3, 'up1')
  for level in range(2, levels + 1):
    at = f'{at}.{1 if level == 2 else 3}.model'
    innermost = level == levels
    up = 3 if innermost else 5
    add(conv, 1, f'down{level}')
    if not innermost:
      add(norm, 2, f'down{level}_norm')
    add(conv_transpose, up, f'up{level}')
    add(norm, up + 1, f'up{level}_norm')
  return tuple(entries)


def refinement_entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of the refining network."""
  levels, at, entries = model.get('levels', 8), 'model.model', []

  def add(kind, key, name):
    entries.extend(kind(f'{at}.{key}', 'refinement', (name,)))

  add(conv, 0, 'first')
  add(conv_transpose, 3, 'last')
  inside = 1  # where a level holds the next one
  for level in range(1, levels + 1):
    at = f'{at}.{inside}.model'
    add(conv, 1, f'down{level}')
    if level == levels:
      add(conv_transpose, 3, f'up{level}')
      add(norm, 4, f'up{level}_norm')
      break
    # The attention and the two places of the consistency loss count as layers.
    attends = level == _ATTENTION_LEVEL
    inside = 8 if attends else 6
    after = inside + (3 if attends else 2)
    add(norm, 2, f'down{level}_norm')
    add(conv, 4, f'encoder{level}')
    add(norm, inside - 1, f'encoder{level}_norm')
    add(conv_transpose, after, f'decoder{level}')
    add(norm, after + 1, f'decoder{level}_norm')
    add(conv_transpose, after + 3, f'up{level}')
    add(norm, after + 4, f'up{level}_norm')
  return tuple(entries)


def critic_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the critic of pictures."""
  entries = []
  for i, key in enumerate((0, 2, 5, 8, 11), start=1):
    entries.extend(conv(f'model.{key}', 'critic', (f'conv{i}',)))
    if 1 < i < 5:
      entries.extend(norm(f'model.{key + 1}', 'critic', (f'conv{i}_norm',)))
  return tuple(entries)


def feature_critic_entries() -> tuple[mapping.Entry, ...]:
  """Entries of the critic of features."""
  entries = []
  for i, key in enumerate((0, 2, 5), start=1):
    entries.extend(conv(f'model.{key}', 'feature_critic', (f'conv{i}',)))
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of all networks."""
  judges = critic_entries() + feature_critic_entries()
  return rough_entries(model) + refinement_entries(model) + judges


PAPER = mapping.Paper(
  title='Coherent Semantic Attention for Image Inpainting',
  authors='Liu, Jiang, Xiao and others',
  venue='ICCV',
  year=2019,
  url='https://arxiv.org/abs/1905.12384',
  idea='rough, then refined; features of the hole filled one after another',
  reference="authors' code",
)

FORMATS = {
  'csa': mapping.Format(
    entries=entries,
    # Each file is the state dict of one network.
    unwrap=(':rough', ':refinement', ':critic', ':feature_critic'),
    note=(
      'EPOCH_net_P.pth and EPOCH_net_G.pth and, if wanted, EPOCH_net_D.pth and EPOCH_net_F.pth, as '
      'the code saves them; none are linked by the authors'
    ),
    licence='CC BY-NC 4.0: no commercial use',
    url='https://github.com/KumapowerLIU/CSA-inpainting',
  ),
}
