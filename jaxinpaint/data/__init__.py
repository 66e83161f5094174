"""Images and masks as batches: sources, resizing, extra inputs, the deterministic pipeline.

The only room that knows tfds and grain. It imports no JAX, so that worker processes start quickly.
May import masks, pictures, arrays and the other floors below.
"""
