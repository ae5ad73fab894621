"""Trained networks as files: their folder, their card, and the Hub."""
