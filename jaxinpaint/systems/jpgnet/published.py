"""The published JPGNet checkpoints: PyTorch files of tsingqguo/jpgnet.

There are two files NUMBER_KPN_bs_BATCH.pth, one for the predictive filtering and one for the
fusion. Each is a state dict with nothing around it. Both have the same keys, so their shapes tell
which is which. The generative part's files are EdgeConnect's (`_shared.edge_guided_files`).
"""

from typing import Any

from jaxinpaint.systems._shared import edge_guided_files
from jaxinpaint.weights import hub, mapping

PAPER = mapping.Paper(
  title='JPGNet: Joint Predictive Filtering and Generative Network for Image Inpainting',
  authors='Guo, Li, Juefei-Xu and others',
  venue='ACM Multimedia',
  year=2021,
  url='https://arxiv.org/abs/2107.04281',
  idea='predictive filtering, fused with a generative network',
  reference="authors' code",
)
# The filtering's file also has conv_fusion, which it does not use.
IGNORE = (r'^conv_fusion\.', *edge_guided_files.IGNORE)
UNWRAP = (*edge_guided_files.UNWRAP, ':kpn1', ':kpn2')


def kpn_entries(model: Any, network: str) -> tuple[mapping.Entry, ...]:
  """Entries of one kernel prediction network; only 'kpn2' has a layer that reduces the channels."""
  entries = []

  def add(key: str, *path: str) -> None:
    entries.extend(mapping.conv(key, network, path))

  for level in range(1, 9):
    for i in range(3):
      add(f'conv{level}.conv1.{2 * i}', f'conv{level}', f'conv{i + 1}')
    if model.get('channel_attention', False):
      add(f'conv{level}.att_c.0', f'conv{level}', 'channel1')
      add(f'conv{level}.att_c.2', f'conv{level}', 'channel2')
    if model.get('spatial_attention', False):
      add(f'conv{level}.att_s.0', f'conv{level}', 'spatial')
  add('outc', 'kernels')
  add('conv_final', 'final')
  if network == 'kpn2':
    add('conv_fusion', 'fusion')
  return tuple(entries)


def entries(model: Any) -> tuple[mapping.Entry, ...]:
  """Entries of all networks that a model with the settings `model` has."""
  all_entries = []
  if model.get('generative', 'edgeconnect') == 'edgeconnect':
    all_entries.extend(edge_guided_files.entries(model))
  all_entries.extend(kpn_entries(model, 'kpn1'))
  if _has_kpn2(model):
    all_entries.extend(kpn_entries(model, 'kpn2'))
  return tuple(all_entries)


def _has_kpn2(model: Any) -> bool:
  generative = model.get('generative', 'edgeconnect') != 'none'
  return generative and model.get('fusion', 'predictive') == 'predictive'


FORMATS = {
  'jpgnet': mapping.Format(
    entries=entries,
    unwrap=UNWRAP,
    ignore=IGNORE,
    note=(
      'the two NUMBER_KPN_bs_BATCH.pth (filtering and fusion) with the EdgeModel_gen.pth and '
      'InpaintingModel_gen.pth of the EdgeConnect variant, for CelebA, Places2 and Dunhuang'
    ),
    licence='none stated by the authors: ask them before using the weights commercially',
    url='https://github.com/tsingqguo/jpgnet',
  ),
}

NAMES = {
  name: hub.Named(
    'jpgnet',
    (
      hub.by_hand(f'NUMBER_KPN_bs_BATCH.pth of the filtering, {data}', 'filtering_KPN.pth'),
      hub.by_hand(f'NUMBER_KPN_bs_BATCH.pth of the fusion, {data}', 'fusion_KPN.pth'),
      hub.by_hand(f'EdgeModel_gen.pth, {data}', 'EdgeModel_gen.pth'),
      hub.by_hand(f'InpaintingModel_gen.pth, {data}', 'InpaintingModel_gen.pth'),
    ),
  )
  for name, data in (('celeba', 'CelebA'), ('places2', 'Places2'), ('dunhuang', 'Dunhuang'))
}
