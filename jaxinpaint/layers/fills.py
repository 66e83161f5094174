"""The fills without learning that a network can start from, by their names in a config."""

from jaxinpaint.layers.smooth_fill import smooth_fill
from jaxinpaint.layers.tension_fill import tension_fill

FILLS = {'smooth': smooth_fill, 'tension': tension_fill}
