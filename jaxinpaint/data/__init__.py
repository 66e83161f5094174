"""Images and masks: sources, decoding, mask families, and the deterministic pipeline.

The only part of the library that knows tfds and grain. It imports no JAX, so that worker processes
start quickly.
"""
