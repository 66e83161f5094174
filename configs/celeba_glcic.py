"""GL (Iizuka et al., ToG 2017) on CelebA at 160 x 160: the faces of the paper.

  jaxinpaint train --config celeba_glcic --workdir runs/celeba_glcic
  jaxinpaint evaluate --workdir runs/celeba_glcic

The baseline of Lin and Wang 2021 (celeba_seresnet_cx.py), by whose protocol it is measured:
published there, PSNR 30.18, SSIM 0.80 over centre holes of 1/4 and 1/3.

Data: docs/data.md (celeb_a). P marks the paper, "code" otenim/GLCIC-PyTorch, whose published
weights are of this experiment (with batches of 16), O our choice. Result here: not trained here;
the published weights are imported by
`jaxinpaint weights import glcic model_cn config.json OUT`.
"""

from jaxinpaint.configs import _base

# P, code: one rectangle with sides of 48 to 96 pixels of 160, in a square of 96.
MASKS = (
  'rectangles;margin=0;min_side=48;max_side=96;min_times=1;max_times=1;within=96;reference=160'
)


def get_config(variant=''):
  config = _base.base('glcic')  # phases of 90,000, 10,000 and 400,000 steps: P, code
  # As celeba_seresnet_cx.py; the code resizes the short side to 160 before it crops.
  _base.celeba(config, crop='random')
  with config.unlocked():
    # P; lr, rho and eps: code (PyTorch's defaults). One state each through all phases.
    config.optimizers.generator = _base.adadelta(1.0, rho=0.9, eps=1e-6)
    config.optimizers.discriminator = _base.adadelta(1.0, rho=0.9, eps=1e-6)
  config.data.size = 160  # P, code
  config.data.batch_size = 96  # P; code: 16
  config.data.flip = True  # O: neither says
  config.data.masks = MASKS
  config.data.workers = 4
  config.training.steps = 500_000
  _base.measured_by(config, 'seed001')
  return _base.finish(config, variant)
