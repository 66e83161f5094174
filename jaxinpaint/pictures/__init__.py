"""Files of pictures: decoding what people and data sets have.

Works on bytes and numpy arrays, without JAX, so that worker processes start quickly. May import
arrays and runtime.
"""
