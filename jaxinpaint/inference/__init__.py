"""A person's photograph: read, completed, written with its profile and metadata.

Large pictures are completed in parts here. May import predictor, metrics and the floors below.
"""
