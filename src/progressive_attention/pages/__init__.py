"""Runs as pages and figures."""
