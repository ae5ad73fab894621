"""The commands of ``pan``: options in, a few printed lines out."""
