"""Weight files: published ones are fetched, read safely and converted; ours are stored and loaded.

What a system or a network of features has published comes in as data (`importer.Published`,
`hub.File`), so this room knows none of them. May import masks, losses and the floors below.
"""
