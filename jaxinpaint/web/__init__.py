"""What pages and HTTP APIs share (extra `[serve]`): who may ask, errors, slow clients.

Knows nothing of pictures, networks or runs. Imports no other room.
"""
