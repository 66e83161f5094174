"""Frozen networks that losses and metrics read: VGG, LPIPS, Inception, ArcFace.

Each module has its flax network, `require` and `load`; `published` is the table of their files. May
import weights and the floors below.
"""
