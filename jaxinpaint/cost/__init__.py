"""What a system or a run costs: operations, seconds, memory, chips, exchange between devices.

Measured on the machine at hand, or estimated from the compiled program. May import training and the
floors below.
"""
