"""The one way to run a system on pictures: pad, draw keys, compile, crop, compose.

  predictor = Predictor(trained.inference, trained.variables, trained.constants)
  completed = predictor(image, mask, ids)      # f32[B,H,W,3]

`evaluate`, `inpaint`, `jaxinpaint.load`, the evaluation during training and the measurement of
costs all run a system through this class, so the same weights give the same pixels everywhere.
"""

import collections
import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinpaint import arrays
from jaxinpaint.data import inputs, resizing
from jaxinpaint.recipe import Constants, Inference, Variables

# A batch: f32[B,H,W,C], or B arrays f32[H,W,C] whose sides may differ where they are padded to the
# same ones.
Images = np.ndarray | Sequence[np.ndarray]
Size = tuple[int, int]  # (height, width)

FEW_SIZES = 4  # so many are never gathered
# Sides are padded to multiples of no more: small pictures, too, would be padded to sides that no
# memory holds.
MOST_PADDING = 4096
# Padding by so many pixels, over all pictures of a set, is taken to cost as much as a compilation.
# A cautious guess: of the library's own weights a megapixel took under 2 s on a busy core, and a
# compilation some 12 s.
COMPILATION_PIXELS = 2**20
_MOST_SIZES = 512  # more are rounded up first: gathering takes a time that grows with their square


class Predictor:
  """A system with its weights, for pictures of any size.

  Sides are padded at the bottom and right by reflection to what the networks take, and the output
  is cropped back. The mask is reflected with the image: a hole that touches the rim stays a hole
  beyond it, where blank pixels would otherwise pass for known ones.

  Networks of one side (`Inference.side`) see pictures of other sizes resized to their square,
  stretched if need be: a pixel that touches the hole is hole there, and the others are means of
  known pixels. The completion is pasted into that square before it is resized back, so that it
  meets the known pixels at the border of the hole.

  Each padded size and batch size is compiled once; `for_sizes` makes few padded sizes of many. A
  batch is split over the devices, each of which holds all the weights; a batch smaller than the
  number of devices runs on so many of them, and one that the devices do not divide is filled up
  with copies of its last image, which are dropped.

  A system that draws random numbers runs image by image (vmap), each with a key made from the seed,
  the number of the image and the number of the sample. So an output does not depend on the other
  images of its batch, except for rounding: a batch of another size is another program.

  Attributes:
    inference: of the system.
    seed: of the random numbers.
    pad_to: sides are padded to a multiple of this number as well as of the network's own.
    refine: whether outputs are refined, where pictures are large enough.
  """

  kind = 'system'

  def __init__(
    self,
    inference: Inference,
    variables: Variables,
    constants: Constants | None = None,
    *,
    seed: int = 0,
    pad_to: int = 1,
    refine: bool = False,
    devices: Sequence[jax.Device] | None = None,
    keep: Callable[[jax.stages.Wrapped, str], Any] | None = None,
  ):
    """Nothing is compiled or copied to a device before the first picture.

    Args:
      inference: of the system.
      variables: at least of `inference.networks`, on any devices. Where arrays are sharded across
        processes, all processes must call this.
      constants: of `inference.load_constants`.
      seed: of the random numbers of systems that draw any.
      pad_to: see the class.
      refine: run `Inference.refined` in place of `Inference.output`.
      devices: that run it; None: all of this process.
      keep: (a jitted function, what tells it from the others of the same inference) -> one that
        gives the same, and keeps traced programs (`runtime.traces`); None: none are kept.

    Raises:
      ValueError: the system has no refined output, or `pad_to` is out of range.
    """
    check_pad_to(pad_to, 1 if inference.side else inference.multiple)
    if refine and inference.refined is None:
      raise ValueError('this system cannot refine what it completes: run it without refine')
    self.inference, self.seed, self.pad_to, self.refine = inference, seed, pad_to, refine
    self._gathered: Mapping[Size, Size] = {}
    self._devices = list(jax.local_devices() if devices is None else devices)
    self._weights = self._gather(variables, constants or {})
    self._placed: dict[int, Any] = {}

    def program(function: Any, kind: str) -> Any:
      jitted = jax.jit(with_keys(function, seed, inference.samples))
      return keep(jitted, f'{kind}, seed {seed}') if keep else jitted

    output = (inference.refined, 'refined') if refine else (inference.output, 'output')
    self._output = program(*output)
    self._pictures = program(inference.pictures, 'pictures') if inference.pictures else None

  def with_weights(self, variables: Variables, constants: Constants) -> 'Predictor':
    """The same system with other weights; what was compiled is shared."""
    other = copy.copy(self)
    other._weights, other._placed = other._gather(variables, constants), {}
    return other

  def padded_to(self, multiple: int) -> 'Predictor':
    """The same system with another `pad_to`; what was compiled is shared.

    A system that stretches the picture (`Inference.whole_picture`) stays as it is.

    Raises:
      ValueError: it is out of range.
    """
    if self.inference.whole_picture:
      return self
    check_pad_to(multiple, 1 if self.inference.side else self.inference.multiple)
    other = copy.copy(self)
    other.pad_to = multiple
    return other

  @property
  def samples(self) -> bool:
    """Whether the system draws random numbers, so that each sample is another completion."""
    return self.inference.samples

  def padded_size(self, height: int, width: int) -> tuple[int, int]:
    """(height, width) at which the networks see a picture of this size."""
    size = self.inference.seen_size(height, width, self.pad_to)
    return self._gathered.get(size, size)

  def for_sizes(self, sizes: Iterable[Size]) -> 'Predictor':
    """The same system for a set of pictures of these sizes; what was compiled is shared.

    Where they have more than `FEW_SIZES` padded sizes, similar ones are gathered and padded alike
    (`gather`), since each takes a compilation. The picture goes on further beyond its rim then, so
    what fills its hole changes: not measurably (PSNR) for the library's own weights, by some levels
    of 255 for networks that normalise, attend or dilate over the whole picture (CHANGELOG.md has
    figures). Nothing is gathered for a system that stretches the picture
    (`Inference.whole_picture`) or has one size for all (`Inference.side`).
    """
    if self.inference.whole_picture or self.inference.side:
      return self
    other = copy.copy(self)
    other._gathered = {}
    multiple = math.lcm(self.inference.multiple, self.pad_to)
    other._gathered = gather([other.padded_size(*size) for size in sizes], multiple)
    return other

  def __call__(self, image: Images, mask: Images, ids: np.ndarray, sample: int = 0) -> Any:
    """The completed images.

    Args:
      image: f32[B,H,W,3] in [0,1], 0 in the hole; or a sequence, see `Images`.
      mask: f32[B,H,W,1], 1 = hole.
      ids: i32[B], the numbers of the images within their set.
      sample: number of the completion, of systems that draw random numbers.

    Returns:
      f32[B,H,W,3] that equals `image` to the bit wherever mask is 0; a list for a sequence.

    Raises:
      ValueError: the system does not fill such a hole (`Inference.check_hole`).
    """
    outputs = self._run(self._output, image, mask, ids, sample, paste=True)
    paste = lambda output, image, mask: np.where(mask > 0, output, image)
    if isinstance(image, np.ndarray):
      return paste(outputs, image, mask)
    return [paste(*row) for row in zip(outputs, image, mask, strict=True)]

  def output(self, image: Images, mask: Images, ids: np.ndarray, sample: int = 0) -> Any:
    """The networks' whole output, known pixels too; arguments and result as of a call."""
    return self._run(self._output, image, mask, ids, sample)

  def pictures(self, image: Images, mask: Images, ids: np.ndarray) -> dict[str, Any]:
    """What the system can show besides its output: a coarse result, edges, where attention looks.

    Args:
      image: as of a call, as mask and ids.
      mask: of the same images.
      ids: their numbers.

    Returns:
      {name: f32[B,H,W,1 or 3] in [0,1]}; {} for a system that has nothing to show.
    """
    return self._run(self._pictures, image, mask, ids, 0) if self._pictures else {}

  def lower(self, image: Images, mask: Images) -> jax.stages.Lowered:
    """The program that makes an output of this batch, to be compiled and examined."""
    return self._output.lower(*self._arguments(image, mask, np.zeros(len(image)), 0))

  def refines(self, size: Size) -> bool:
    """Whether the output of a picture that the networks see at this size is refined."""
    return self.refine and min(size) >= self.inference.refined_side

  def refuses(self, mask: np.ndarray) -> str:
    """Why the system cannot fill a hole, mask [H,W] or [H,W,1] with 1 = hole; '': it can."""
    mask = mask.reshape(*mask.shape[:2], 1)
    try:
      self.inference.check_hole(self._fit(mask, mask)[1][..., 0] > 0)
    except ValueError as error:
      return str(error)
    return ''

  def fingerprint(self) -> str:
    """SHA-256 of everything that an output depends on: the weights, the seed, the padding."""
    digest = hashlib.sha256(f'{self.inference.inputs} {self.seed} {self.pad_to}'.encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(self._weights):
      leaf = np.asarray(leaf)
      digest.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}'.encode())
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

  def _run(
    self,
    program: Callable,
    image: Images,
    mask: Images,
    ids: np.ndarray,
    sample: int,
    *,
    paste: bool = False,
  ) -> Any:
    """What a program makes of a batch, on the host, at the sizes of the images.

    With `paste` results that are resized are pasted first into what the networks saw.
    """
    results = program(*self._arguments(image, mask, ids, sample))

    def restored(row: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
      height, width = image.shape[:2]
      if not self.inference.side or (height, width) == row.shape[:2]:
        return row[:height, :width]
      if paste:
        seen, hole = self._fit(image, mask)
        row = np.where(hole > 0, row, seen)
      resized = resizing.area(row, height, width)
      return resized.reshape(height, width, -1).clip(0, 1)

    def restore(x: jax.Array) -> Any:
      # The copies that fill up the batch come last, and are left out here.
      rows = [restored(*row) for row in zip(np.asarray(x), image, mask, strict=False)]
      return np.stack(rows) if isinstance(image, np.ndarray) else rows

    return jax.tree.map(restore, results)

  def _fit(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image [H,W,C] and its mask as the networks see them: padded, or resized to their side."""
    size = self.padded_size(*mask.shape[:2])
    if not self.inference.side or size == mask.shape[:2]:
      mode = self.inference.pad_mode
      return arrays.pad(image, *size, mode), arrays.pad(mask, *size, mode)
    image, hole = resizing.known_only(image.astype(np.float32), mask[..., 0] > 0, *size)
    return image, hole[..., None].astype(np.float32)

  def _arguments(self, image: Images, mask: Images, ids: np.ndarray, sample: int) -> tuple:
    """What a program takes, on the devices; raises ValueError for a hole that is not filled."""
    count = min(len(image), len(self._devices))
    fitted = [self._fit(*row) for row in zip(image, mask, strict=True)]
    images, masks = (np.stack(rows) for rows in zip(*fitted, strict=True))
    for one in masks:
      self.inference.check_hole(one[..., 0] > 0)
    extra = inputs.compute(self.inference.inputs, images, masks)
    whole = (images, masks, np.asarray(ids, np.int32), extra)
    rows = np.minimum(np.arange(-(-len(image) // count) * count), len(image) - 1)
    weights, split = self._place(count)
    batch = jax.device_put(jax.tree.map(lambda x: x[rows], whole), split)
    return weights, *batch, np.int32(sample)

  def _place(self, count: int) -> tuple[Any, NamedSharding]:
    """The weights on each of the first devices, and how a batch is split over these."""
    if count not in self._placed:
      mesh = Mesh(np.array(self._devices[:count]), ('batch',))
      whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ('batch',)))
      self._placed[count] = jax.device_put(self._weights, whole), split
    return self._placed[count]

  def _gather(self, variables: Variables, constants: Constants) -> tuple[Variables, Constants]:
    """The weights of the networks that inference reads, whole in this process."""

    def whole(x: Any) -> Any:
      if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
      if x.is_fully_replicated:
        return x.addressable_data(0)
      from jax.experimental import multihost_utils

      return multihost_utils.process_allgather(x, tiled=True)

    used = variables.pick(self.inference.networks)
    return jax.tree.map(whole, (used, dict(constants)))


def gather(sizes: Sequence[Size], multiple: int = 1, few: int = FEW_SIZES) -> dict[Size, Size]:
  """Few padded sizes for many: {size: the one that pictures of this size are padded to}.

  Again and again the two sizes that this costs least become one, the larger of both on each side,
  while there are more than `few` and the padding costs less than a compilation.

  Args:
    sizes: of all pictures of a set, multiples of ...
    multiple: ... what the network takes.
    few: so many are never gathered.
  """
  rounded = {size: size for size in sizes}
  while len(set(rounded.values())) > _MOST_SIZES:
    multiple *= 2
    rounded = {size: arrays.padded_size(*size, multiple) for size in rounded}
  counts = collections.Counter(rounded[size] for size in sizes)
  shapes = np.array(sorted(counts), np.int64).reshape(-1, 2)
  numbers = np.array([counts[h, w] for h, w in shapes.tolist()])
  groups = [[tuple(shape)] for shape in shapes.tolist()]
  while len(shapes) > few:
    both = np.maximum(shapes[:, None], shapes)  # [n,n,2]
    pixels = numbers * shapes.prod(-1)
    added = both.prod(-1) * (numbers[:, None] + numbers) - pixels[:, None] - pixels
    np.fill_diagonal(added, np.iinfo(np.int64).max)
    a, b = sorted(divmod(int(added.argmin()), len(shapes)))
    if added[a, b] > COMPILATION_PIXELS:
      break
    shapes[a], numbers[a] = both[a, b], numbers[a] + numbers[b]
    groups[a] += groups.pop(b)
    shapes, numbers = np.delete(shapes, b, 0), np.delete(numbers, b)
  gathered = {
    s: (h, w) for (h, w), group in zip(shapes.tolist(), groups, strict=True) for s in group
  }
  return {size: gathered[rounded[size]] for size in rounded}


def check_pad_to(pad_to: int, multiple: int = 1) -> None:
  """Raises ValueError where sides would be padded too far.

  Args:
    pad_to: that they are to be multiples of ...
    multiple: ... as well as of this number, the network's.
  """
  if pad_to < 1:
    raise ValueError(f'pad_to {pad_to} must be at least 1')
  if pad_to > MOST_PADDING:
    raise ValueError(f'pad_to {pad_to} must be at most {MOST_PADDING}')
  both = math.lcm(pad_to, multiple)
  if both > MOST_PADDING:
    raise ValueError(
      f'pad_to {pad_to} pads sides to multiples of {both}, because the network takes multiples of '
      f'{multiple}, and {MOST_PADDING} is the most: choose a multiple of {multiple}'
    )


def with_keys(function: Callable, seed: int, samples: bool) -> Callable:
  """`function` of a batch; where it samples, image by image with a key for each.

  Args:
    function: an `Output` or `Pictures` of an `Inference`.
    seed: of the random numbers.
    samples: `Inference.samples`.

  Returns:
    Function of ((variables, constants), image f32[B,H,W,3], mask f32[B,H,W,1], i32[B] numbers of
    the images, {name: extra input}, number of the sample).
  """

  def whole(weights, image, mask, ids, further, sample):
    return function(*weights, image, mask, jax.random.key(seed), **further)

  def one_by_one(weights, image, mask, ids, further, sample):
    def one(image, mask, index, further):
      key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), index), sample)
      image, mask, further = jax.tree.map(lambda x: x[None], (image, mask, further))
      return jax.tree.map(
        lambda x: jnp.squeeze(x, 0), function(*weights, image, mask, key, **further)
      )

    return jax.vmap(one)(image, mask, ids, further)

  return one_by_one if samples else whole
