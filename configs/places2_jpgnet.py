"""JPGNet (Guo et al., ACM Multimedia 2021) with EdgeConnect, on Places2 at 256 x 256.

  jaxinpaint train --config places2_jpgnet --workdir runs/places2_jpgnet
  jaxinpaint evaluate --workdir runs/places2_jpgnet

The run trains the generative part first, as places2_edgeconnect.py does. The authors took it
published: import EdgeModel_gen.pth and InpaintingModel_gen.pth into a workdir or file with
`jaxinpaint weights import edgeconnect`, and skip its phases:

  --config.init_from=FILE --config.phases.edge=0 --config.phases.inpainting=0
  --config.phases.joint=0 --config.training.steps=1000000

Measured by seed000, the main paper's comparison, whose metrics are those of JPGNet's code.

Data: docs/data.md (places365_small). Numbers are those of the released configuration; O marks ours.
Result here: not trained here; the published weights are imported by `jaxinpaint weights
import jpgnet KPN1.pth KPN2.pth EdgeModel_gen.pth InpaintingModel_gen.pth OUT`.
"""

from jaxinpaint.configs import _base, places2_edgeconnect


def get_config(variant=''):
  config = _base.base('jpgnet')
  _base.places2(config)
  with config.unlocked():
    config.optimizers.update(places2_edgeconnect.get_config().optimizers)  # the generative part's
    for name in ('kpn1', 'kpn2'):
      config.optimizers[name] = _base.adam(2e-4, b1=0.5, b2=0.999)
  config.data.size = 256
  config.data.batch_size = 8  # the released fusion loop takes one picture at a time
  config.data.crop = 'center'  # centre square, then resized
  config.data.flip = True
  config.data.masks = 'irregular'  # O: the published runs used NVIDIA's files: 'folder:PATH'
  config.data.workers = 4
  config.training.steps = sum(config.phases.values())
  _base.measured_by(config, 'seed000')
  return _base.finish(config, variant)
