"""What every program stands on: processes, locks, files, faults, chips, compiled programs.

Knows nothing of images or networks. Imports no other room.
"""
