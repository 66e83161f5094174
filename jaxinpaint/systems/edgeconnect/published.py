"""The published EdgeConnect checkpoints: PyTorch files of knazeri/edge-connect.

`systems._shared.edge_guided_files` says what is in them.
"""

from jaxinpaint.systems._shared import edge_guided_files
from jaxinpaint.weights import hub, mapping

PAPER = mapping.Paper(
  title='EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning',
  authors='Nazeri, Ng, Joseph and others',
  venue='ICCV Workshops',
  year=2019,
  url='https://arxiv.org/abs/1901.00212',
  idea='edges first, then the picture',
  reference="authors' code",
)
FORMATS = {
  'edgeconnect': mapping.Format(
    entries=edge_guided_files.entries,
    unwrap=edge_guided_files.UNWRAP,
    ignore=edge_guided_files.IGNORE,
    note=(
      'EdgeModel_gen.pth and InpaintingModel_gen.pth and, if wanted, EdgeModel_dis.pth and '
      'InpaintingModel_dis.pth, of the folders places2, celeba and psv'
    ),
    licence='CC BY-NC 4.0 (the repository)',
    url='https://github.com/knazeri/edge-connect',
  ),
}

NAMES = {
  folder: hub.Named(
    'edgeconnect',
    tuple(
      hub.by_hand(f'{file} of the folder {folder}', file)
      for file in ('EdgeModel_gen.pth', 'InpaintingModel_gen.pth')
    ),
  )
  for folder in ('places2', 'celeba', 'psv')
}
