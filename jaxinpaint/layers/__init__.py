"""Flax modules and array operations that several systems share.

What differs between frameworks (padding, transposed convolution, resizing) is settled here, once,
in `conv`. May import arrays and runtime.
"""
