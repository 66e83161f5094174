"""A page that shows training runs while they go on, and a file that shows them afterwards.

It reads what `training` writes into a workdir, and changes nothing there. No request names a file:
runs and pictures are asked for by their numbers. Imports no jax: it starts at once, and runs on a
machine that only mounts the workdir. The page needs the extra `[serve]`, the file does not.
"""
