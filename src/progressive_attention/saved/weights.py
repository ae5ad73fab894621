"""Another name of the folder's functions, until every module imports them from ``saved``."""

from progressive_attention.saved import FORMAT, SHIPPED, Trained, describe, find, load, save, shipped

__all__ = ["FORMAT", "SHIPPED", "Trained", "describe", "find", "load", "save", "shipped"]
