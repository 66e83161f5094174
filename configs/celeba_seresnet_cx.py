"""SE-ResNet completion with a contextual loss (Lin and Wang, 2021) on CelebA at 160 x 160.

  jaxinpaint train --config celeba_seresnet_cx --workdir runs/celeba_seresnet_cx
  jaxinpaint evaluate --workdir runs/celeba_seresnet_cx

Data: docs/data.md (celeb_a). Numbers are the paper's; O marks ours where it is silent, mostly those
of GLCIC's PyTorch port (see the system's networks.py). VGG16's weights are fetched at the first
start. Published: PSNR 36.90, SSIM 0.92 over centre holes of 1/4 and 1/3 of 128 test images (GLCIC:
30.18, 0.80; here celeba_glcic.py, with the same crops and holes). Result here: not trained
here.
"""

from jaxinpaint.configs import _base, celeba_glcic


def experiment():
  """The experiment's config without its data set."""
  config = _base.base('seresnet_cx')
  with config.unlocked():
    for network in ('generator', 'discriminator'):
      # O: the port's optimizer with PyTorch's defaults.
      config.optimizers[network] = _base.adadelta(1.0, rho=0.9, eps=1e-6)
  config.data.size = 160
  config.data.crop = 'random'  # images are "cropped to 160 x 160"; O: at a random place
  config.data.flip = False  # O
  config.data.masks = celeba_glcic.MASKS  # O: the port's holes
  config.data.workers = 4  # O
  config.training.steps = sum(config.phases.values())  # 500,000
  _base.measured_by(config, 'seed001')
  return config


def get_config(variant=''):
  config = experiment()
  _base.celeba(config, crop=config.data.crop)
  config.data.split = 'train[:120000]'  # the paper tests on the rest: here, on CelebA's test split
  config.data.batch_size = 12
  return _base.finish(config, variant)
