"""Files of other programs, PyTorch's and TensorFlow's, read without them; no code in them is run.

May import `weights.tensors` and the floors below weights.
"""
