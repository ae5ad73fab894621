"""Train a network: the loop, what it minimises, and where it stands."""
