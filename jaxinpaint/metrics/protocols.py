"""The evaluation protocols, as data: what is measured, on which images and holes, and how.

The same name means different arithmetic in different papers, so numbers are only comparable under
one protocol; its id is stamped into every result.

In the notes, "Stated" is what the source says, "Code" what its published code does, and "Ours" what
both leave open and this library decides; a metric whose `published` is empty has no column in the
source's tables.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics.protocol import DEEP, Metric, Protocol

_RGB8 = {'data_range': 255}
_UNIFORM7 = {'definition': 'uniform7', **_RGB8}
_UNIFORM51 = {'definition': 'uniform51', **_RGB8}
_GAUSSIAN = {'definition': 'gaussian', **_RGB8}

_FID = Metric('fid', 'FID', 'fid', {}, 'lower', 3, 'FID')
_HOLE = (
  Metric('hole_psnr', 'hole PSNR', 'psnr_hole', _RGB8, 'higher', 3),
  Metric('hole_l1_percent', 'hole L1 %', 'l1_percent_hole', _RGB8, 'lower', 2),
)


def _percents(*edges: int) -> tuple[Bin, ...]:
  """Adjoining bins between these edges, in percent."""
  return tuple(Bin(a / 100, b / 100) for a, b in itertools.pairwise(edges))


def _around(share: float, masks: str, name: str, published: str = '') -> Bin:
  """The bin of masks that have this share, to half a percent of the image."""
  return Bin(share - 0.005, share + 0.005, masks, name, published)


SEED000 = Protocol(
  id='seed000',
  source=(
    'Wu, Zhang, Wang, Chen, Qin: Image Inpainting Based on Perceptual Inference and External '
    'Spatial Prior Features; tables 1 and 2'
  ),
  notes=(
    'Stated: 500 test images of each set, bins of 10-20, 20-40, 40-60 %, PSNR, SSIM, L1 %. Its '
    'text says 0-20 % where its tables say 10-20 %: both are measured. Ours: the paper states '
    'neither the range nor the window of its metrics: 8-bit RGB composites, PSNR with 255, SSIM '
    'by a uniform 7 x 7 window with sample covariance on each channel, L1 as the mean absolute '
    'difference of [0, 1] images in percent; the centre squares are reduced by area, and the hole '
    'columns are added.'
  ),
  size=256,
  count=500,
  bins=(Bin(0.0, 0.2), Bin(0.1, 0.2), Bin(0.2, 0.4), Bin(0.4, 0.6)),
  masks='irregular',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 3, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _UNIFORM7, 'higher', 4, 'SSIM'),
    Metric('l1_percent', 'L1 %', 'l1_percent', _RGB8, 'lower', 2, 'L1'),
    Metric('hole_psnr', 'hole PSNR', 'psnr_hole', _RGB8, 'higher', 3),
    Metric('hole_ssim', 'hole SSIM', 'ssim_hole', _UNIFORM7, 'higher', 4),
    Metric('hole_l1_percent', 'hole L1 %', 'l1_percent_hole', _RGB8, 'lower', 2),
  ),
)

SEED001 = Protocol(
  id='seed001',
  source=(
    'Lin, Wang: Image Inpainting Based on New Encoder and Similarity Constraint, Computer Systems '
    '& Applications 30(1), 2021; table 1'
  ),
  notes=(
    'Stated: 128 images drawn at random from the test set of CelebA, 160 x 160, the centre '
    'missing by 1/4 and by 1/3; PSNR and SSIM. Its table gives one number for both holes. Ours: '
    '1/4 and 1/3 are shares of the area (squares of 80 and 92 pixels); SSIM by the Gaussian '
    'window of Wang et al. 2004, each channel; composites, 8 bits; the middle 160 x 160 pixels, '
    'as the paper crops its images and names no place; images spread evenly over the set instead '
    'of drawn. Figure 6 shows random holes and no numbers: the bin "random" has those of the '
    "training, the GLCIC port's."
  ),
  size=160,
  count=128,
  bins=(
    _around(1 / 4, 'center:0.25', 'center 1/4', 'center 1/4 and 1/3 (not separated)'),
    _around(1 / 3, 'center:0.333333', 'center 1/3', 'center 1/4 and 1/3 (not separated)'),
    Bin(
      0.0,
      1.0,
      'rectangles;margin=0;min_side=48;max_side=96;min_times=1;max_times=1;within=96;reference=160',
      'random',
    ),
  ),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 2, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _GAUSSIAN, 'higher', 3, 'SSIM'),
    *_HOLE,
  ),
  crop='window',
)

SURVEY = Protocol(
  id='survey',
  source=(
    'the survey of image inpainting by network architecture in five classes, eleven methods '
    'retrained by its authors on CelebA and Places2; tables 2 to 15'
  ),
  notes=(
    'Stated: 1,000 test images; centre holes of 10, 15, 20, 25 % and random holes of 10, 20, 30, '
    '40 % of the area; PSNR with 255 and SSIM per channel, then averaged. Ours: 256 x 256, the '
    'centre square reduced by a bilinear filter with antialiasing; centre squares of 81, 99, 114, '
    '128 pixels; random holes of strokes drawn until the share is reached, the last one trimmed; '
    "SSIM by an 11 x 11 Gaussian window inside the image (the survey's words describe one window "
    'over the whole image: the "global" columns); a channel without error counts 100 dB; 8 bits. '
    'It does not say whether known pixels were pasted back: both are measured. The SSIM of a '
    'composite with a centre hole of 10 % cannot fall below about 0.87, and several of its '
    'numbers do, so some of its methods were scored without pasting.'
  ),
  size=256,
  count=1000,
  bins=(
    *(_around(p / 100, f'center:{p / 100:g}', f'center {p}') for p in (10, 15, 20, 25)),
    *(_around(p / 100, f'survey_random:{p / 100:g}', f'random {p}') for p in (10, 20, 30, 40)),
  ),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr', 'PSNR', 'psnr_channels', _RGB8, 'higher', 2, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _GAUSSIAN, 'higher', 3, 'SSIM'),
    Metric('ssim_global', 'global SSIM', 'ssim_global', _RGB8, 'higher', 3),
    Metric('raw_psnr', 'raw PSNR', 'psnr_channels', _RGB8, 'higher', 2, '', 'raw'),
    Metric('raw_ssim', 'raw SSIM', 'ssim', _GAUSSIAN, 'higher', 3, '', 'raw'),
    Metric('raw_ssim_global', 'raw global SSIM', 'ssim_global', _RGB8, 'higher', 3, '', 'raw'),
  ),
  resize='bilinear_antialias',
)

SEED003 = Protocol(
  id='seed003',
  source=(
    'Zhang, Liu: Face Image Restoration Based on Latent Feature Reconstruction and Attention '
    'Mechanism; tables 1 and 2'
  ),
  notes=(
    'Stated: CelebA-HQ at 256 x 256, square masks ("number 10"), PSNR, SSIM of Wang et al. 2004, '
    'FID. Ours: ten squares of 16 to 28 pixels; 2,000 images; composites, 8 bits; PSNR of the '
    "joint error, SSIM by the 2004 paper's Gaussian window, each channel; FID by the PyTorch port "
    'of the 2015 network; images reduced by area.'
  ),
  size=256,
  count=2000,
  bins=(
    Bin(
      0.0,
      1.0,
      'rectangles;square=True;margin=0;min_side=16;max_side=28;min_times=10;max_times=10',
      'square',
    ),
  ),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 3, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _GAUSSIAN, 'higher', 3, 'SSIM'),
    _FID,
    *_HOLE,
  ),
)

SEED004 = Protocol(
  id='seed004',
  source=(
    'Yu, Lin, Yang, Shen, Lu, Huang: Generative Image Inpainting with Contextual Attention, CVPR '
    '2018; the numbers on Places2'
  ),
  notes=(
    'Stated: the validation set of Places2, direct outputs without post-processing; mean l1 error '
    'in percent and PSNR. Code: 256 x 256, one hole of 128 x 128 pixels, shrunk by up to 16 on '
    'each side. Ours: the whole set of 36,500 images; 8-bit composites; the hole drawn as in '
    'training. The numbers are read as those of the hole: over whole composites with a quarter '
    'missing, mean |d| is at most half of the root of the mean d^2, 5.7 % at 18.91 dB, and the '
    'paper has 8.6 %. The whole-image columns stand beside them.'
  ),
  size=256,
  count=36500,
  bins=(Bin(0.14, 0.25, 'box', 'box'),),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('hole_l1_percent', 'hole L1 %', 'l1_percent_hole', _RGB8, 'lower', 2, 'L1'),
    Metric('hole_l2_percent', 'hole L2 %', 'l2_percent_hole', _RGB8, 'lower', 2),
    Metric('hole_psnr', 'hole PSNR', 'psnr_hole', _RGB8, 'higher', 2, 'PSNR'),
    Metric('l1_percent', 'L1 %', 'l1_percent', _RGB8, 'lower', 2),
    Metric('l2_percent', 'L2 %', 'l2_percent', _RGB8, 'lower', 2),
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 2),
  ),
)

EDGECONNECT = Protocol(
  id='edgeconnect',
  source=(
    'Nazeri, Ng, Joseph, Qureshi, Ebrahimi: EdgeConnect, 2019, and its published script of '
    'metrics; RFR, CTSDG and MISF measure likewise'
  ),
  notes=(
    'Code: both images in gray (0.2125 R + 0.7154 G + 0.0721 B of [0, 1] floats): PSNR with range '
    '1, SSIM by a uniform 51 x 51 window with sample covariance, and as "MAE" the sum of absolute '
    'differences divided by the sum of both images; FID on colours. The centre square is reduced '
    "by Pillow's bilinear filter; composites in 8-bit files. Stated: irregular masks in bins of "
    '10 %. Ours: 10,000 images; the bins from 10 to 50 %; rounding to nearest.'
  ),
  size=256,
  count=10000,
  bins=_percents(10, 20, 30, 40, 50),
  masks='irregular',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr_gray', 'gray PSNR', 'psnr_gray', _RGB8, 'higher', 2, 'PSNR'),
    Metric('ssim_gray', 'gray SSIM', 'ssim_gray', _UNIFORM51, 'higher', 3, 'SSIM'),
    Metric('mae_gray', 'gray sum/sum', 'mae_edgeconnect_gray', _RGB8, 'lower', 4, 'MAE'),
    _FID,
  ),
  resize='bilinear_antialias',
)

AOTGAN = Protocol(
  id='aotgan',
  source='Zeng, Fu, Chao, Guo: AOT-GAN, TVCG 2022, and its published script of metrics',
  notes=(
    'Code: 8-bit RGB composites, cut and not rounded: PSNR with 255, SSIM by a uniform 7 x 7 '
    'window on each channel, as "MAE" the sum of absolute differences divided by the sum of both '
    'images, FID. Stated: Places2 at 512 x 512, irregular masks in bins of 1-10, 10-20, ... 50-60 '
    "%. Ours: all 36,500 validation images; the centre square, reduced by Pillow's bilinear "
    'filter.'
  ),
  size=512,
  count=36500,
  bins=_percents(1, 10, 20, 30, 40, 50, 60),
  masks='irregular',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 2, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _UNIFORM7, 'higher', 3, 'SSIM'),
    Metric('mae_rgb', 'sum/sum', 'mae_edgeconnect', {}, 'lower', 4, 'MAE'),
    _FID,
  ),
  resize='bilinear_antialias',
  rounding='truncate',
)

MAT = Protocol(
  id='mat',
  source='Li, Lin, Zhou, Qi, Wang, Jia: MAT, CVPR 2022, and its published evaluation',
  notes=(
    'Stated: the 36,500 validation images of Places at 512 x 512, a set of small and one of large '
    'masks; FID, P-IDS, U-IDS, LPIPS. Code: 8-bit composites, rounded; PSNR of the joint error '
    'with 255, SSIM as the 2004 paper (Gaussian, inside the image, each channel), mean |a - b| / '
    '255, LPIPS with AlexNet, features of the 2015 network as StyleGAN2 takes them. Ours: the '
    'published masks are files; without them small ones are irregular of 10-40 %, large ones of '
    '40-70 %. The centre square, reduced by area. FID takes the PyTorch port of the network and '
    "sample covariances, so its last digits differ from StyleGAN2's."
  ),
  size=512,
  count=36500,
  bins=(Bin(0.1, 0.4, name='small'), Bin(0.4, 0.7, name='large')),
  masks='irregular',
  composite=True,
  round_to_uint8=True,
  metrics=(
    _FID,
    Metric('p_ids', 'P-IDS %', 'p_ids', {}, 'higher', 2, 'P-IDS'),
    Metric('u_ids', 'U-IDS %', 'u_ids', {}, 'higher', 2, 'U-IDS'),
    Metric('lpips', 'LPIPS', 'lpips', {'net': 'alex'}, 'lower', 4, 'LPIPS'),
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 2, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _GAUSSIAN, 'higher', 4, 'SSIM'),
    Metric('l1', 'L1', 'l1', _RGB8, 'lower', 4, 'L1'),
  ),
)

LAMA = Protocol(
  id='lama',
  source=(
    'Suvorov, Logacheva, Mashikhin et al.: Resolution-robust Large Mask Inpainting with Fourier '
    'Convolutions, WACV 2022, and its published evaluation'
  ),
  notes=(
    'Stated: 30,000 images of Places, thin, medium and thick masks of its generators at 512 x '
    '512, none above half of the image; FID and LPIPS. Code: composites, cut to 8 bits; LPIPS '
    'with VGG; SSIM of a PyTorch convolution (Gaussian of 11 taps, borders padded with black and '
    'counted). Ours: the centre square, reduced by area. Its tables by tenths of the hole come '
    'with --bins and --masks, its 256 x 256 sets with --size 256 --masks lama_thick_256.'
  ),
  size=512,
  count=30000,
  bins=tuple(Bin(0.0, 0.5, f'lama_{kind}_512', kind) for kind in ('thin', 'medium', 'thick')),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    _FID,
    Metric('lpips', 'LPIPS', 'lpips', {'net': 'vgg'}, 'lower', 4, 'LPIPS'),
    Metric('ssim', 'SSIM', 'ssim_zero_padded', _RGB8, 'higher', 4, 'SSIM'),
  ),
  rounding='truncate',
)

MIGAN = Protocol(
  id='migan',
  source=(
    'Sargsyan, Navasardyan, Xu, Shi: MI-GAN: A Simple Baseline for Image Inpainting on Mobile '
    'Devices, ICCV 2023, and its published code'
  ),
  notes=(
    'Stated: the 36,500 validation images of Places2 at 512 x 512 and at 256 x 256, 10,000 of FFHQ '
    'at 256 x 256, free-form masks of all shares; FID and LPIPS. Code: composites; its '
    'demonstration cuts them to 8 bits; LPIPS with AlexNet. Ours: PSNR of the joint error, over '
    'the image and over the hole; the centre square, reduced by area. The other sets come with '
    '--size 256 and --count 10000.'
  ),
  size=512,
  count=36500,
  bins=(Bin(0.0, 1.0),),
  masks='free_form',
  composite=True,
  round_to_uint8=True,
  metrics=(
    _FID,
    Metric('lpips', 'LPIPS', 'lpips', {'net': 'alex'}, 'lower', 4, 'LPIPS'),
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 2),
    _HOLE[0],
  ),
  rounding='truncate',
)

MMAGIC = Protocol(
  id='mmagic',
  source="the model pages of OpenMMLab's MMagic (before: MMEditing), inpainting",
  notes=(
    'Stated: Places365 validation at 256 x 256, square boxes or free forms; "l1 error", PSNR, '
    'SSIM; SSIM as MATLAB has it, each channel. Ours: the l1 error is the mean absolute '
    'difference over the hole in percent (its page has 11.2 % at 23.15 dB for boxes; over the '
    'whole picture the mean is at most the root of the mean square, 7.0 %); PSNR of the joint '
    'error with 255 and SSIM by the 2004 Gaussian window inside the image, over the whole '
    'picture; resizing bilinear without antialiasing, as OpenCV does by default; boxes and '
    'strokes of this library; the centre square; all 36,500 images. Its code was not read.'
  ),
  size=256,
  count=36500,
  bins=(Bin(0.14, 0.25, 'box', 'square bbox'), Bin(0.0, 1.0, 'strokes', 'free-form')),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('hole_l1_percent', 'l1 error', 'l1_percent_hole', _RGB8, 'lower', 3, 'L1'),
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 3, 'PSNR'),
    Metric('ssim', 'SSIM', 'ssim', _GAUSSIAN, 'higher', 3, 'SSIM'),
  ),
  resize='bilinear',
)

DEEPFILL = Protocol(
  id='deepfill',
  source=(
    'Yu, Lin, Yang, Shen, Lu, Huang: Free-Form Image Inpainting with Gated Convolution, ICCV '
    '2019, and the published code of DeepFill v1 and v2'
  ),
  notes=(
    'Stated: the validation set of Places2 at 256 x 256, rectangular and free-form holes; mean l1 '
    'and l2 errors in percent. Code: composites, cut to 8 bits; no script of metrics. Ours: 8-bit '
    'range, over the whole image and over the hole, since the paper does not say which; PSNR of '
    'the joint error; the centre square, reduced by area; all 36,500 images.'
  ),
  size=256,
  count=36500,
  bins=(Bin(0.14, 0.25, 'box', 'rectangular'), Bin(0.0, 1.0, 'strokes', 'free-form')),
  masks='',
  composite=True,
  round_to_uint8=True,
  metrics=(
    Metric('l1_percent', 'L1 %', 'l1_percent', _RGB8, 'lower', 2, 'L1'),
    Metric('l2_percent', 'L2 %', 'l2_percent', _RGB8, 'lower', 2, 'L2'),
    Metric('hole_l1_percent', 'hole L1 %', 'l1_percent_hole', _RGB8, 'lower', 2),
    Metric('hole_l2_percent', 'hole L2 %', 'l2_percent_hole', _RGB8, 'lower', 2),
    Metric('psnr', 'PSNR', 'psnr', _RGB8, 'higher', 2),
  ),
  rounding='truncate',
)

PROTOCOLS: dict[str, Protocol] = {
  p.id: p
  for p in (
    SEED000,
    SEED001,
    SURVEY,
    SEED003,
    SEED004,
    EDGECONNECT,
    AOTGAN,
    MAT,
    LAMA,
    MIGAN,
    MMAGIC,
    DEEPFILL,
  )
}


def get(name: str) -> Protocol:
  """The protocol of that id.

  Raises:
    ValueError: there is none; lists those there are.
  """
  if name not in PROTOCOLS:
    raise ValueError(f'unknown protocol {name!r}; there are: {", ".join(PROTOCOLS)}')
  return PROTOCOLS[name]


def with_samples(protocol: Protocol, count: int) -> Protocol:
  """The protocol with columns for `count` completions of each image, where it has none.

  They are the best of their PSNRs, the best of their LPIPS, and their mean LPIPS to each other.
  """
  if count < 2 or any(DEEP.get(m.function) == 'samples' for m in protocol.metrics):
    return protocol
  best = lambda of: {'of': of, **({'data_range': 255} if protocol.round_to_uint8 else {})}
  columns = (
    Metric('best_psnr', f'best PSNR of {count}', 'best_of_k', best('psnr'), 'higher', 3),
    Metric('best_lpips', f'best LPIPS of {count}', 'best_of_k', best('lpips'), 'lower', 4),
    Metric('diversity', f'diversity of {count}', 'lpips_diversity', {}, 'higher', 4),
  )
  return dataclasses.replace(protocol, metrics=protocol.metrics + columns)


def parse_bins(labels: Sequence[str]) -> tuple[Bin, ...]:
  """['10-20', '20-40'], in percent -> bins.

  Raises:
    ValueError: not LOW-HIGH with 0 <= LOW < HIGH <= 100, or one is there twice.
  """
  bins = []
  for label in labels:
    try:
      low, high = (float(x) / 100 for x in label.strip().rstrip('%').split('-'))
    except ValueError as error:
      raise ValueError(f'bin {label!r} must be LOW-HIGH in percent of hole, as 10-20') from error
    if not 0 <= low < high <= 1:
      raise ValueError(f'bin {label!r} must satisfy 0 <= LOW < HIGH <= 100')
    bins.append(Bin(low, high))
  if not bins or len(set(bins)) != len(bins):
    raise ValueError(f'bins {list(labels)} must be at least one, each once')
  return tuple(bins)
