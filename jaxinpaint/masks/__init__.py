"""Holes: families of random masks, files and folders of masks, frozen sets, sets of an evaluation.

A mask is f32[H,W,1] in {0,1}, 1 = hole, and depends only on its specification and its seed. May
import pictures, recipe, arrays and runtime.
"""
