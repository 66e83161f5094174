"""The ground under a program: processes, locks, faults, environment, compiled programs."""
