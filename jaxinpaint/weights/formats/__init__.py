"""Other programs' files: PyTorch's pickles and TensorFlow's tables, read without either."""
