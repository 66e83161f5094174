"""SE-ResNet completion with a contextual loss (Lin and Wang, 2021) on CelebA at 160 x 160.

  jaxinpaint train --config celeba_seresnet_cx --workdir runs/celeba_seresnet_cx
  jaxinpaint evaluate --workdir runs/celeba_seresnet_cx --masks center:0.25

Data: docs/data.md (celeb_a). Numbers are the paper's; O marks ours where it is silent, mostly those
of GLCIC's PyTorch port (see the system's networks.py). VGG16's weights are fetched at the first
start. Published: PSNR 36.90, SSIM 0.92 over centre holes of 1/4 and 1/3 of 128 test images (GLCIC:
30.18, 0.80). Result here: not trained here.
"""

from jaxinpaint.configs import _base

# O, of the port: one rectangle with sides of 48 to 96 pixels of 160, anywhere.
MASKS = 'rectangles;margin=0;min_side=48;max_side=96;min_times=1;max_times=1;reference=160'


def experiment():
  """The experiment's config without its data set."""
  config = _base.base('seresnet_cx')
  with config.unlocked():
    for network in ('generator', 'discriminator'):
      # O: the port's optimizer with PyTorch's defaults.
      config.optimizers[network] = _base.adadelta(1.0, rho=0.9, eps=1e-6)
  config.data.size = 160
  config.data.flip = False  # O
  config.data.masks = MASKS
  config.data.workers = 4  # O
  config.training.steps = sum(config.phases.values())  # 500,000
  config.evaluation.masks = 'center:0.25'
  config.evaluation.count = 128
  return config


def get_config(variant=''):
  config = experiment()
  _base.celeba(config)
  config.data.split = 'train[:120000]'  # the paper tests on the rest: here, on CelebA's test split
  config.data.batch_size = 12
  return _base.finish(config, variant)
