"""Grids of pictures: input | mask | outputs | truth."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxinpaint import arrays
from jaxinpaint.masks.bins import Bin
from jaxinpaint.report.results import Results

# Smaller cells are enlarged by repeating pixels: then labels fit, and holes can be seen.
_MIN_CELL = 192
_GAP = 4
_EMPTY = 255  # the hole is white in the input column


def hole_shown(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The truth with a white hole, uint8[H, W, 3]; mask uint8[H, W], 1 = hole."""
  return np.where(mask[..., None] > 0, np.uint8(_EMPTY), truth)


def mask_shown(mask: np.ndarray) -> np.ndarray:
  """uint8[H, W], 1 = hole -> uint8[H, W, 3], white = hole."""
  return np.repeat((mask[..., None] > 0).astype(np.uint8) * 255, 3, axis=-1)


def rows_of(
  truths: Sequence[np.ndarray],
  masks: Sequence[np.ndarray],
  outputs: Sequence[Sequence[np.ndarray]],
) -> list[list[np.ndarray]]:
  """A row of pictures for each image: input, mask, outputs (uint8, or float in [0, 1]), truth."""
  to_uint8 = lambda x: x if x.dtype == np.uint8 else arrays.to_uint8(x)
  return [
    [hole_shown(truth, mask), mask_shown(mask), *map(to_uint8, several), truth]
    for truth, mask, several in zip(truths, masks, outputs, strict=True)
  ]


def draw(
  rows: Sequence[Sequence[np.ndarray]],
  labels: Sequence[str],
  captions: Sequence[Sequence[str]] | None = None,
) -> np.ndarray:
  """A grid with a label above each column.

  Args:
    rows: of uint8[H, W, 3], all of one size.
    labels: of the columns.
    captions: of the cells, below each.

  Returns:
    uint8[H', W', 3].
  """
  height, width = rows[0][0].shape[:2]
  scale = max(1, -(-_MIN_CELL // width))
  height, width = height * scale, width * scale
  text = 16
  font = ImageFont.load_default(size=text - 2)
  foot = text + 2 if captions else 0
  top = text + 2 * _GAP
  canvas = Image.new(
    'RGB',
    (
      len(labels) * (width + _GAP) + _GAP,
      top + len(rows) * (height + foot + _GAP),
    ),
    'white',
  )
  pen = ImageDraw.Draw(canvas)
  centred = lambda x, y, words: pen.text((x + width // 2, y), words, 'black', font, anchor='ma')
  for column, label in enumerate(labels):
    x = _GAP + column * (width + _GAP)
    centred(x, _GAP, _fitting(label, width, font))
    for row, cells in enumerate(rows):
      y = top + row * (height + foot + _GAP)
      cell = Image.fromarray(cells[column]).resize((width, height), Image.Resampling.NEAREST)
      canvas.paste(cell, (x, y))
      if captions:
        centred(x, y + height + 1, captions[row][column])
  return np.asarray(canvas)


def _fitting(label: str, width: int, font: ImageFont.ImageFont) -> str:
  """The label, shortened if it is wider than its column."""
  if font.getlength(label) <= width:
    return label
  while label and font.getlength(label + '…') > width:
    label = label[:-1]
  return label + '…'


def of_examples(
  results: Results, b: Bin, pictures: Mapping[str, Sequence[np.ndarray]] | None = None
) -> Image.Image | None:
  """The examples of a bin: input | mask | outputs with their PSNR | pictures | truth.

  Args:
    results: with examples.
    b: the bin.
    pictures: {label: uint8[H, W, 3] of each example of the bin}.
  """
  pictures = pictures or {}
  examples = [e for e in results.examples if e.bin == b]
  if not examples:
    return None
  first = results.image_metrics[0]
  values = {
    (r.predictor, r.index): r.values.get(first.name, math.nan)
    for r in results.records
    if r.bin == b
  }
  # Joined reports may know a predictor's numbers without its pictures.
  names = [n for n in results.predictors if all(n in e.outputs for e in examples)]
  rows = rows_of(
    [e.truth for e in examples],
    [e.mask for e in examples],
    [
      [*(e.outputs[n] for n in names), *(p[i] for p in pictures.values())]
      for i, e in enumerate(examples)
    ],
  )
  captions = [
    [
      '',
      f'{100 * e.mask.mean():.1f} %',
      *(f'{first.label} {values[n, e.index]:.2f}' for n in names),
      *('' for _ in pictures),
      '',
    ]
    for e in examples
  ]
  labels = ['input', 'mask', *names, *pictures, 'truth']
  return Image.fromarray(draw(rows, labels, captions))
