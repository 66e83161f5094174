"""The survey's study: all systems and data sets, in its tables."""
