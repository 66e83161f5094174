"""What is measured of a picture or a set of pictures: definitions, networks, statistics."""
