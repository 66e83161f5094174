"""A page to brush on and an HTTP API, for one or few people and programs (extra `[serve]`).

One worker owns the device; requests wait for it in a queue with a bound. Nothing that a request
sends names, reads or writes a file of the server, and nothing is kept after the answer. May import
inference and the floors below.
"""
