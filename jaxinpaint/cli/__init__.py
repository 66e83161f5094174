"""The commands: flags, messages and exit codes; the work is done in the rooms below.

They also look up what lower rooms are handed as data, such as a system's published formats. May
import every room.
"""
