"""Training: the loop, the step, the state, checkpoints, sharding and what a run writes.

It knows no system by name: a `Recipe` says what is trained. May import evaluation and the floors
below.
"""
