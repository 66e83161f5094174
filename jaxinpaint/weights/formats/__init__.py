"""Files of other programs, PyTorch's and TensorFlow's, read without them; no code in them is run.

Imports nothing else of weights; may import the floors below it.
"""
