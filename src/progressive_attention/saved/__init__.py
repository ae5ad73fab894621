"""Trained networks as files: their folder (``load``, ``save``, ``find``), their card, and the Hub."""

from progressive_attention.saved.network_folder import (
    FORMAT,
    SHIPPED,
    Trained,
    describe,
    find,
    load,
    read_config,
    save,
    shipped,
)

__all__ = ["FORMAT", "SHIPPED", "Trained", "describe", "find", "load", "read_config", "save", "shipped"]
