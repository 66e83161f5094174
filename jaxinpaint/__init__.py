"""JAX image inpainting: one train loop, one evaluator, one inference path."""

__version__ = '0.1.0'
