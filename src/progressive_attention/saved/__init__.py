"""Trained networks as files: their folder (``load``, ``save``, ``find``), their card, and the Hub."""

from progressive_attention.saved.network_folder import (
    CLONE,
    FORMAT,
    OUTSIDE,
    SHIPPED,
    Trained,
    describe,
    find,
    load,
    missing,
    pretrained,
    read_config,
    save,
    shipped,
)

__all__ = [
    "CLONE",
    "FORMAT",
    "OUTSIDE",
    "SHIPPED",
    "Trained",
    "describe",
    "find",
    "load",
    "missing",
    "pretrained",
    "read_config",
    "save",
    "shipped",
]
