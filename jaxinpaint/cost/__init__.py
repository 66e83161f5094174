"""What a system or a run asks for: operations, seconds, memory, chips, exchange."""
