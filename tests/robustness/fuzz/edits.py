"""Edits of bytes and of JSON trees, and the words and numbers that few readers expect."""

import json
import struct
from random import Random
from typing import Any

OUTSIDE = "../secret/secret.png"  # what no reader may open, seen from a case's folder
WORDS = ["", " ", ";", "\0", "=1+1", "[]", ".", "..", "/", "a.png", "./a.png", OUTSIDE, "e\u0301"]
WORDS += ["nan", "null", "7", "007", "1.5", "true", "2020-01-01", "12:30:00", "0x1F", "1_0", "é", "\u202e", "a,b"]
WORDS += ["a;;b", "-1", "1e999", "train", "test", '"', "a\nb", "a\rb", "/etc/hostname", "a.zip/../a.png"]
WORDS += ["images.zip/" + OUTSIDE, "x" * 70_000, "9" * 30]
NUMBERS = [0, 1, -1, 2, 7, 0.5, -0.0, 255, 256, 65536, 2**31 - 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 1e38, 1e308]
NUMBERS += [10**30, 10**400, float("nan"), float("inf"), float("-inf"), 1e-320]
TOKENS = [word.encode() for word in WORDS]
TOKENS += [b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\r", b"\n", b"\r\n", b"9" * 5000, b"(" * 300]
TOKENS += b"{ } [ ] , : < </ > &a; &#0; ]]> % ' NaN Infinity {} null PK\3\4 PK\5\6".split()
TOKENS += [b"\x80\x04cposix\nsystem\n"]
NESTS = [("[", "]"), ('{"a":', "}")]


def in_bytes(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """Flip a bit, cut, repeat, insert a token, splice, or set what may be a length to an extreme."""
    data, length = bytearray(content), len(content)
    at = rng.randrange(length + 1)
    end = min(length, at + rng.choice((1, 2, 4, 8, 64, length)))
    match rng.randrange(9):
        case 0 | 1 if at < length:
            data[at] ^= 1 << rng.randrange(8)
        case 2:
            del data[at:]
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        case 5 | 6:
            data[at : at + rng.choice((0, 1, 4))] = rng.choice(TOKENS)
        case 7:
            form = rng.choice("BHIQhiq")
            width = struct.calcsize(form)
            value = rng.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 2**16))
            data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))
        case 8:
            data[at:] = other[rng.randrange(len(other) + 1) :]
    if rng.random() < 0.02:
        data[:] = data.decode("latin-1").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "replace")
    return bytes(data)


class Pairs(list):
    """A JSON object as [key, value] pairs, so that a key may be there twice."""

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__([key, value] for key, value in pairs)


class Raw(str):
    """Text that is written as it is."""


def read_tree(content: bytes) -> Any:
    return json.loads(content, object_pairs_hook=Pairs)


def write_tree(node: Any, rng: Random) -> str:
    """A tree as JSON, in ASCII or not."""
    if isinstance(node, Raw):
        return node
    if isinstance(node, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{write_tree(value, rng)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(write_tree(value, rng) for value in node) + "]"
    return json.dumps(node, ensure_ascii=rng.random() < 0.9)


def hostile(rng: Random) -> Any:
    """A JSON value that few readers expect."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind < 8:
        return rng.choice([*WORDS, "\ud800"])
    if kind == 8:
        return rng.choice(
            [None, True, False, [], Pairs(), [[]], [None], Pairs([["a", 1]]), Raw("1e999"), Raw("9" * 5000)]
        )
    opening, closing = rng.choice(NESTS)
    deep = rng.choice((3, 70, 1100, 100_000))
    return Raw(opening * deep + "1" + closing * deep)


def slots(node: Any) -> list[tuple[list[Any], int]]:
    """All places (list, index) of a tree that hold a value; a pair's index is 1."""
    found = []
    for i, child in enumerate(node if isinstance(node, list) else ()):
        place = (child, 1) if isinstance(node, Pairs) else (node, i)
        found += [place, *slots(place[0][place[1]])]
    return found


def in_tree(tree: Any, rng: Random) -> Any:
    """Replace, delete, repeat, swap, rename or wrap a value."""
    root = [tree]
    places = slots(root)
    holder, index = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1 | 2:
            holder[index] = hostile(rng)
        case 3:
            lists = [place[0][place[1]] for place in places if isinstance(place[0][place[1]], list)]
            if chosen := [one for one in lists if one]:
                one = rng.choice(chosen)
                del one[rng.randrange(len(one))]
        case 4:
            lists = [place[0][place[1]] for place in places if isinstance(place[0][place[1]], list)]
            if chosen := [one for one in lists if one]:
                one = rng.choice(chosen)
                again = rng.choice(one)
                one.insert(rng.randrange(len(one) + 1), list(again) if isinstance(one, Pairs) else again)
        case 5:
            there, at = rng.choice(places)
            value = there[at]
            holder[index] = (
                json.loads(json.dumps(value)) if not isinstance(value, list) else Raw(write_tree(value, rng))
            )
        case 6:
            keyed = [pair for holder, i in places if isinstance(holder[i], Pairs) for pair in holder[i]]
            if keyed:
                rng.choice(keyed)[0] = rng.choice([*WORDS, rng.choice(keyed)[0]])
        case 7:
            holder[index] = [holder[index]]
    return root[0]


def in_json(content: bytes, rng: Random) -> bytes:
    return write_tree(in_tree(read_tree(content), rng), rng).encode("utf-8", "surrogatepass")


def in_jsonl(content: bytes, rng: Random) -> bytes:
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = in_json(lines[at], rng) if rng.random() < 0.8 else rng.choice(lines)
    return b"\n".join(lines)
