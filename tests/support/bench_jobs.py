"""Jobs for fresh processes: in a file of their own, so that such a process need not import a whole test."""

import os


def counter(start):
    """A job that counts its calls, and tells its process."""
    calls = []

    def job():
        calls.append(1)
        return start + len(calls), os.getpid()

    return job


def dying(code):
    """A job that ends its process."""
    return lambda: os._exit(code)


def filling(mebibytes):
    """A job that keeps more memory with each call."""
    kept = []
    return lambda: kept.append(b"\1" * (mebibytes * 2**20))
