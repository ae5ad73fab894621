"""A tiny encoder of words, and a network that it asks, that the tests of text queries share."""

import numpy as np
from tiny_models import build

from progressive_attention.predict.text_queries import unit_vectors
from progressive_attention.saved import Trained, describe

WORDS, ANSWERS = ("car", "dog", "cat", "7", "house"), ("red", "old", "wet")


def letters(texts) -> np.ndarray:
    """How often each of 32 classes of letters occurs in a text, and one: never zero."""
    counts = [np.bincount([ord(letter) % 32 for letter in text], minlength=32) for text in texts]
    return np.array(counts, float) + 1


def asked_by_letters(name: str = "pan-hard-ctx", **changes) -> Trained:
    """A small network with random weights that knows WORDS."""
    model = build(name, query_vectors=unit_vectors(WORDS, letters), query_encoder="letters", **changes).eval()
    return Trained(model, WORDS, ANSWERS, describe(model.config, WORDS, ANSWERS))
