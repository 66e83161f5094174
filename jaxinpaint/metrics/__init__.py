"""What is measured of a picture, or of a set of pictures: definitions, networks, statistics.

A protocol names the metrics of a comparison and how each is computed. May import systems, features,
data and the floors below.
"""
