"""What an evaluation is: which rows, on which images and holes, by which protocol, run how.

  wanted = ImagesSpec('folder:photos', protocols.get('seed000'), split='', size=256, count=100)
  spec = EvaluationSpec({'mine': predict, **classical.PREDICTORS}, wanted.load(), wanted.protocol)
  run.evaluate_and_report(spec, 'runs/evaluation/mine')

The flags of `evaluate`, the config of a run, and the study all end in an `EvaluationSpec`. What is
wrong with one is said when it is built, before anything is measured.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from typing import Protocol as Interface

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

import jaxinpaint
from jaxinpaint.data import pipeline, sources
from jaxinpaint.evaluation import journal, predictors
from jaxinpaint.masks import sets
from jaxinpaint.masks.bins import Bin
from jaxinpaint.metrics import deep, protocols
from jaxinpaint.metrics.protocols import Protocol
from jaxinpaint.runtime import digest
from jaxinpaint.runtime.environment import commit

# Seed of the masks. It is not the run's seed: runs with other seeds meet the same masks.
SEED = 0


class EvaluationError(ValueError):
  """The evaluation cannot be made or trusted; the message says why."""


class Images(Interface):
  """Test images of one size, as `data.pipeline.evaluation_set` gives them."""

  def __len__(self) -> int:
    """How many there are."""

  def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
    """(uint8[H, W, 3] RGB, its path); raises pictures.decode.UnreadableImage."""


@dataclasses.dataclass(frozen=True)
class MaskedImages:
  """Images and their holes: what rows are measured on.

  Attributes:
    images: the test images.
    masks: {bin: image index -> mask}, of `masks.sets.make`; an image whose mask is None is not
      measured in that bin.
    count: the first `count` images are measured; None: as many as the protocol wants.
    seed: of the masks.
    dataset: name of the images in the report.
    masks_name: name of the masks in the report.
  """

  images: Images
  masks: sets.MaskSet
  count: int | None = None
  seed: int = SEED
  dataset: str = ''
  masks_name: str = ''

  @property
  def paths(self) -> list[str]:
    """Names of the images, without reading them; [] where the images have none."""
    name = getattr(self.images, 'path', None)
    return [name(i) for i in range(len(self.images))] if name else []


@dataclasses.dataclass(frozen=True)
class ImagesSpec:
  """`MaskedImages` in words, as a config or flags name them; `load` finds them.

  Attributes:
    source: name of the images as in config.data.eval_source, or a Source.
    protocol: says how images are cut and resized, and which bins have masks of their own.
    split: of a named source; '' takes a folder as it is.
    size: side of the square images; None: the protocol's.
    count: how many images, spread evenly over the source; None: the protocol's.
    masks: specification or folder of the masks; None: the protocol's.
    bins: shares of hole; None: the protocol's.
    own_masks: bins that have masks of their own keep them; False: all bins use `masks`.
    invert: the holes of mask files are black.
    seed: of the masks.
    data_dir: of tfds.
  """

  source: str | sources.Source
  protocol: Protocol
  split: str = 'test'
  size: int | None = None
  count: int | None = None
  masks: str | None = None
  bins: tuple[Bin, ...] | None = None
  own_masks: bool = True
  invert: bool = False
  seed: int = SEED
  data_dir: str = ''

  @classmethod
  def of_config(cls, config: ConfigDict, protocol: Protocol | None = None) -> 'ImagesSpec':
    """What a config evaluates on: its sections `data` and `evaluation`, either of which may lack.

    Args:
      config: of a system, or empty.
      protocol: default the config's. Another one than the config's brings its own masks and count,
        since the config's were chosen for the config's protocol.

    Raises:
      ValueError: the config names an unknown protocol.
    """
    data, given = config.get('data') or {}, config.get('evaluation') or {}
    protocol = protocol or protocol_of(config)
    if protocol.id != given.get('protocol', protocol.id):
      given = {}
    return cls(
      source=data.get('eval_source') or data.get('source') or '',
      protocol=protocol,
      split=data.get('eval_split', 'test'),
      size=data.get('size'),
      count=given.get('count'),
      masks=given.get('masks') or None,
      data_dir=data.get('data_dir', ''),
    )

  @property
  def side(self) -> int:
    """Of the images."""
    return self.protocol.size if self.size is None else self.size

  def load(self) -> MaskedImages:
    """Finds images and masks; reads no image, but draws or opens the first masks.

    Raises:
      ValueError, OSError: no such images or masks, or a size that the protocol's metrics, the
        masks or the images do not allow.
    """
    protocol, side = self.protocol, self.side
    count = protocol.count if self.count is None else self.count
    bins = protocol.bins if self.bins is None else self.bins
    masks = protocol.masks if self.masks is None else self.masks
    if not masks and not all(b.masks for b in bins):
      raise ValueError(
        f'protocol {protocol.id!r} has holes for its own bins alone: give --masks with --bins, as '
        '--masks irregular'
      )
    protocol.check_size(side, side)
    if not self.source:
      raise ValueError(
        "give the images to evaluate on: --data folder:PATH, files:LIST.txt, tfds:NAME or 'sample'"
      )
    images = pipeline.evaluation_set(
      self.source,
      self.split,
      size=side,
      count=count,
      **protocol.image_options,
      data_dir=self.data_dir,
    )
    holes = sets.make(
      masks,
      bins,
      side,
      side,
      seed=self.seed,
      invert=self.invert,
      own_masks=self.own_masks,
      images=images,
    )
    dataset = f'{self.source}/{self.split}' if self.split else str(self.source)
    name = sets.name_of(masks) + (', inverted' if self.invert else '')
    return MaskedImages(images, holes, count, self.seed, dataset, name)


def fillable(on: MaskedImages, rows: Mapping[str, Any]) -> MaskedImages:
  """The same without the bins that a row does not fill, judged by the first mask of each; logs it.

  Raises:
    EvaluationError: no bin is left; says what the row fills.
  """
  kept, said = dict(on.masks), ''
  for bin, masks in on.masks.items():
    first = next((m for i in range(len(on.images)) if (m := masks(i)) is not None), None)
    if first is None:
      continue
    for name, row in rows.items():
      if why := predictors.refuses(row, np.asarray(first)):
        kept.pop(bin, None)
        said = f'{name!r}: {why}'
  if said and not kept:
    raise EvaluationError(said)
  if said:
    left_out = ', '.join(b.label for b in on.masks if b not in kept)
    logging.warning('Holes left out of the evaluation: %s. %s', left_out, said)
  return dataclasses.replace(on, masks=kept)


def protocol_of(config: ConfigDict) -> Protocol:
  """The protocol that a config names; without a name `seed000`.

  Raises:
    ValueError: unknown protocol.
  """
  given = config.get('evaluation') or {}
  return protocols.get(given.get('protocol') or protocols.SEED000.id)


@dataclasses.dataclass(frozen=True)
class About:
  """What a report says beside the numbers.

  Attributes:
    baseline: the row that paired differences are taken against; '': none.
    published: the data set whose published rows stand beside; None: the one whose name is nearest;
      '': none.
    notes: for the reader, {title: sentence}.
    resources: {row: {name of a resource: number}}.
  """

  baseline: str = ''
  published: str | None = None
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  resources: Mapping[str, dict[str, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
  """Everything that the numbers and the report of one evaluation depend on.

  Attributes:
    rows: {name: predictor or stored outputs, see `predictors`}.
    on: images and their holes.
    protocol: what is measured, and how.
    batch_size: images at a time on each process; it changes numbers by rounding at most.
    samples: completions of each image by rows that sample; only metrics of samples see more than
      the first.
    on_unreadable: 'skip' leaves out images that cannot be read, and says so; 'fail' ends there.
    networks: networks of features for the protocol's metrics; None: those in the cache.
    about: what the report says beside the numbers.

  Raises:
    EvaluationError: a number or word that cannot be, nothing to measure, a row that is neither a
      function nor stored outputs, or a baseline that is no row.
  """

  rows: Mapping[str, Any]
  on: MaskedImages
  protocol: Protocol
  batch_size: int = 8
  samples: int = 1
  on_unreadable: str = 'skip'
  networks: deep.Networks | None = None
  about: About = About()

  def __post_init__(self):
    if not self.rows or not self.on.masks or self.batch_size < 1 or self.samples < 1:
      raise EvaluationError(
        f'give at least one predictor ({len(self.rows)}), one bin ({len(self.on.masks)}), a '
        f'batch_size of at least 1 ({self.batch_size}) and samples of at least 1 ({self.samples})'
      )
    for name, row in self.rows.items():
      if not (callable(row) or predictors.is_stored(row) or predictors.has_raw(row)):
        raise EvaluationError(
          f'the row {name!r} is a {type(row).__name__}: give a function of (image, mask, ids), a '
          'Predictor or stored outputs, see jaxinpaint.evaluation.predictors'
        )
    if self.on_unreadable not in ('skip', 'fail'):
      raise EvaluationError(f"on_unreadable {self.on_unreadable!r} must be 'skip' or 'fail'")
    if self.count < 1:
      raise EvaluationError(
        f'no images to evaluate on: there are {len(self.on.images)}, wanted {self.on.count}'
      )
    if self.about.baseline and self.about.baseline not in self.rows:
      raise EvaluationError(
        f'the baseline {self.about.baseline!r} must be one of the rows: {", ".join(self.rows)}'
      )

  @property
  def count(self) -> int:
    """How many images are measured: as many as are wanted and there."""
    wanted = self.protocol.count if self.on.count is None else self.on.count
    return min(wanted, len(self.on.images))

  def with_networks(self) -> 'EvaluationSpec':
    """The same, with the networks of features that the protocol's metrics need."""
    if self.networks is not None or not self.protocol.deep_metrics:
      return self
    return dataclasses.replace(self, networks=deep.Networks.load(self.protocol.metrics))

  def fingerprint(self) -> dict[str, Any] | None:
    """What the numbers depend on, JSON-able; None where a row cannot say what it depends on.

    An interrupted evaluation is resumed only where nothing of it has changed.
    """
    outputs = predictors.fingerprints(self.rows)
    if outputs is None:
      return None
    drawn = [m(i) for m in self.on.masks.values() for i in range(min(2, len(self.on.images)))]
    settings = dict(
      count=self.on.count,
      samples=self.samples,
      seed=self.on.seed,
      masks=self.on.masks_name,
      dataset=self.on.dataset,
    )
    if self.networks:  # other weights give other numbers, and missing weights none
      settings |= dict(networks=dict(self.networks.origins), missing=sorted(self.networks.missing))
    return {
      **settings,
      'protocol': json.loads(json.dumps(self.protocol.description())),
      'bins': [dataclasses.asdict(b) for b in self.on.masks],
      'first masks': digest.of(*(b'none' if m is None else np.packbits(m) for m in drawn)),
      'rows': outputs,
      'images': journal.digest_of_files(self.on.paths),
      'program': {
        'version': jaxinpaint.__version__,
        'commit': commit(),
        'jax': jax.__version__,
        'backend': jax.default_backend(),
      },
    }
