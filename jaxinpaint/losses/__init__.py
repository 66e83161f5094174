"""Losses as pure functions of outputs and images, or of the outputs of critics.

They hold no parameters and read no config. May import layers, recipe, arrays and runtime.
"""
