"""What the recipes of several systems have in common: losses, phases, checks, files.

May import features, data and the floors below; no system by name.
"""
