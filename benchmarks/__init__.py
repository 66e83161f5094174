"""Speed and memory, run by hand; nothing here is asserted by a test."""
