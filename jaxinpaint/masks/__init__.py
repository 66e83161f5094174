"""Holes: families, files, frozen sets and folders, the sets of an evaluation."""
