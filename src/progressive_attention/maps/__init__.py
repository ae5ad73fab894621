"""Where a network looked, on the image's pixels: receptive fields, and the maps drawn through them."""
