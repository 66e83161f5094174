"""The published files of all networks of features, by the names of `jaxinpaint weights`.

hub.fetch('fid-inception', published.FILES)
"""

from jaxinpaint.features import arcface, inception, lpips, resnet_dilated, vgg
from jaxinpaint.weights import hub


def _lpips(net: str) -> tuple[hub.File, ...]:
  def part(what: str, url: str, sha256: str, folder: str) -> hub.File:
    read = lambda path: lpips.load_part(net, what, path)
    return hub.File(f'LPIPS {net}, {what}', url, sha256, read, folder)

  return part('trunk', *lpips.TRUNKS[net], ''), part('heads', *lpips.HEADS[net], lpips.HEADS_FOLDER)


def _vgg(depth: int) -> tuple[hub.File, ...]:
  return (hub.File(f'VGG{depth}', *vgg.PUBLISHED[depth], lambda path: vgg.load(depth, path)),)


FILES: dict[str, tuple[hub.File, ...]] = {
  'fid-inception': (hub.File('Inception of FID', *inception.PUBLISHED, inception.load),),
  **{f'lpips-{net}': _lpips(net) for net in lpips.CHANNELS},
  **{f'vgg{depth}': _vgg(depth) for depth in vgg.BLOCKS},
  'arcface': (
    hub.File(
      'IR-SE50 of ArcFace',
      arcface.ADDRESS,
      '',
      arcface.load,
      name=arcface.FILE,
      by_hand='it lies on a drive that offers no checksum',
    ),
  ),
  'resnet50-dilated': (
    hub.File(
      'dilated ResNet-50 of ADE20K',
      resnet_dilated.ADDRESS,
      '',
      resnet_dilated.load,
      folder=resnet_dilated.FOLDER,
      by_hand='no checksum of it is published',
    ),
  ),
}
