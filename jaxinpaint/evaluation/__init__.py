"""Systems, classical fills and folders of pictures, measured on one set of images and holes.

An interrupted evaluation goes on from its journal. May import report, inference and the floors
below.
"""
