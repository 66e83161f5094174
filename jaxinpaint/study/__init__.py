"""The survey's study: all systems on all data sets, in the survey's tables.

It plans evaluations and joins their reports. May import cost and the floors below.
"""
