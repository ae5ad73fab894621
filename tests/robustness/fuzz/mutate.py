"""Mutations of valid files, drawn from a seeded generator: of bytes, and of what each format makes of them.

A structural edit leaves lengths and checksums right, so that what is hostile gets past them and reaches the reader.
"""

import csv
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random

import pyarrow as pa
from pyarrow import parquet

from fuzz.edits import NUMBERS, OUTSIDE, WORDS, in_bytes, in_json, in_jsonl, in_tree, read_tree, write_tree

DOCTYPES = [
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    f'<!DOCTYPE a [<!ENTITY a SYSTEM "{OUTSIDE}">]>',
    '<?xml version="1.0" encoding="utf-7"?>',
    '<?xml version="1.0" encoding="cp037"?>',
]


def mutated(content: bytes, suffix: str, rng: Random, other: bytes = b"") -> bytes:
    """One to four edits of a file, of its structure where it has one; ``other`` is a file to splice from."""
    edit = STRUCTURES.get(suffix)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if edit is None or rng.random() < 0.2:
            content = in_bytes(content, rng, other)
            continue
        try:
            content = edit(content, rng)
        except Exception:  # an edit before has broken the structure, or the edit can't be written
            content = in_bytes(content, rng, other)
    return content


def in_csv(content: bytes, rng: Random) -> bytes:
    """Change, delete or repeat a cell, a row or a column."""
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    row = rng.choice(rows)
    match rng.randrange(6):
        case 0 | 1 | 2:
            row[rng.randrange(len(row))] = str(rng.choice(WORDS + NUMBERS))
        case 3:
            at, word = rng.randrange(len(row)), str(rng.choice(WORDS + NUMBERS))
            for one in rows[1:]:
                one[at] = word
        case 4:
            at = rng.randrange(len(row))
            for one in rows:
                one.insert(at, one[at]) if rng.random() < 0.5 else one.pop(at)
        case 5:
            rows.insert(rng.randrange(len(rows) + 1), row)
    out = io.StringIO(newline="")
    quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    csv.writer(out, quoting=quoting, lineterminator=rng.choice(("\n", "\r\n", "\r"))).writerows(rows)
    return out.getvalue().encode()


def in_parquet(content: bytes, rng: Random) -> bytes:
    """Change a cell, or give a column another type, name or place."""
    table = parquet.read_table(io.BytesIO(content))
    at = rng.randrange(table.num_columns)
    name, cells = table.column_names[at], table.column(at).to_pylist()
    match rng.randrange(5):
        case 0 | 1:
            cells[rng.randrange(len(cells))] = rng.choice(
                [*WORDS, *NUMBERS, None, [], [None], {"bytes": b"x"}, b"\xff"]
            )
            table = table.set_column(at, name, pa.array(cells))
        case 2:
            kinds = [
                pa.large_string(),
                pa.binary(),
                pa.float16(),
                pa.float64(),
                pa.bool_(),
                pa.date32(),
                pa.int8(),
                pa.null(),
            ]
            kinds += [pa.timestamp("s"), pa.time32("s"), pa.decimal128(20, 3), pa.duration("s"), pa.uint64()]
            kind = rng.choice(kinds)
            table = table.set_column(
                at, name, pa.nulls(len(cells), kind) if rng.random() < 0.3 else pa.array([1] * len(cells)).cast(kind)
            )
        case 3:
            table = table.set_column(at, rng.choice([*WORDS, *table.column_names]), table.column(at))
        case 4:
            table = table.append_column(rng.choice(["scale", "mask", "x0", "absent", name]), table.column(at))
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def in_tokens(content: bytes, rng: Random, pattern: str, values: list[str]) -> bytes:
    """Replace, delete, repeat or swap a token, of those that a pattern splits a text into."""
    tokens = [token for token in re.split(pattern, content.decode()) if token]
    at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    match rng.randrange(5):
        case 0 | 1:
            tokens[at] = str(rng.choice(values))
        case 2:
            del tokens[at]
        case 3:
            tokens.insert(other, tokens[at] * (rng.choice((1, 1, 3, 1000)) if len(tokens[at]) < 1000 else 1))
        case 4:
            tokens[at], tokens[other] = tokens[other], tokens[at]
    return "".join(tokens).encode("utf-8", "surrogatepass")


def in_xml(content: bytes, rng: Random) -> bytes:
    if rng.random() < 0.1:
        return rng.choice(DOCTYPES).encode() + content
    return in_tokens(content, rng, r"(<[^>]*>)", [*WORDS, *map(str, NUMBERS), "<object>", "</object>", "<a>" * 20_000])


def in_lines(content: bytes, rng: Random) -> bytes:
    return in_tokens(content, rng, r"(\n)", WORDS)


def in_zip(content: bytes, rng: Random) -> bytes:
    """Edit, rename or repeat a member, or state a size that is not its own."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, inside = members[at]
    match rng.randrange(5):
        case 0 | 1 | 2:
            members[at] = name, mutated(inside, "." + name.rpartition(".")[2], rng)
        case 3:
            members[at] = rng.choice([name, *filter(None, WORDS)])[:60_000], inside
        case 4:
            members.append((name, bytes(rng.choice((0, 10, 3_000_000)))))
    out = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, inside in members:
            archive.writestr(zipfile.ZipInfo(name), inside, kind)
    written = bytearray(out.getvalue())
    if rng.random() < 0.15:  # sizes of a member, in the central directory
        start = written.rfind(b"PK\1\2")
        struct.pack_into("<I", written, start + rng.choice((20, 24)), rng.choice((0, 1, 2**31 - 1, 2**32 - 2)))
    return bytes(written)


def in_npy(content: bytes, rng: Random) -> bytes:
    """Edit an array's header: kind, shape, order."""
    size = struct.unpack_from("<H", content, 8)[0]
    head, data = content[10 : 10 + size].decode(), content[10 + size :]
    kinds = ["|O", "<U1000000000", "|V4", "<M8[s]", ">i8", "<f2", "<c8", "|b1", "|S0", "<U0", "<f8", "|u1", "<i8"]
    kind = rng.random()
    if kind < 0.4:
        return content[: 10 + size] + in_bytes(data, rng)[: len(data)].ljust(len(data), b"\0")
    if kind < 0.7:
        head = re.sub(r"'descr': '[^']*'", f"'descr': '{rng.choice(kinds)}'", head)
    else:
        shape = rng.choice(
            ["()", "(0,)", "(-1,)", "(3, 0, 4, 3)", "(9999999999999,)", f"({2**63},)", "(1,)" * 9, "[3]", "('a',)"]
        )
        head = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", head)
    if rng.random() < 0.2:
        head = head.replace("False", rng.choice(["True", "None", "__import__('os').system('true')", "(" * 200]))
    return content[:8] + struct.pack("<H", len(head)) + head.encode() + data


def in_safetensors(content: bytes, rng: Random) -> bytes:
    """Edit the header, its stated length in step."""
    size = struct.unpack_from("<Q", content)[0]
    tree, data = read_tree(content[8 : 8 + size]), content[8 + size :]
    notes = next((pair[1] for pair in tree if pair[0] == "__metadata__"), None)
    if notes and rng.random() < 0.6:  # JSON inside of JSON
        pair = rng.choice(notes)
        pair[1] = in_json(pair[1].encode(), rng).decode("utf-8", "replace")
        head = write_tree(tree, rng).encode("utf-8", "surrogatepass")
    elif rng.random() < 0.3:
        data, head = in_bytes(data, rng), content[8 : 8 + size]
    else:
        head = write_tree(in_tree(tree, rng), rng).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(head)) + head + data


def in_png(content: bytes, rng: Random) -> bytes:
    """Edit a chunk, its length and checksum in step: absurd sizes, depths and colour kinds in IHDR, or any bytes."""
    chunks, at = [], 8
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        chunks.append((kind, content[at + 8 : at + 8 + size]))
        at += 12 + size
    i = rng.randrange(len(chunks))
    kind, data = chunks[i]
    if rng.random() < 0.4:
        sides = [0, 1, 8, 9, 5000, 10_000, 20_000, 2**31 - 1, 2**32 - 1]
        wide, high, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
        wide, high = rng.choice((wide, *sides)), rng.choice((high, *sides))
        rest = [rng.choice((value, value, value, 0, 1, 2, 3, 4, 6, 16, 255)) for value in rest]
        chunks[0] = b"IHDR", struct.pack(">IIBBBBB", wide, high, *rest)
    elif rng.random() < 0.3:
        more = [(b"acTL", struct.pack(">II", 2**31 - 1, 0)), (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**6)))]
        more += [
            (b"eXIf", b"MM\0*\0\0\0\10\0\1\1\x12\0\3\0\0\0\1\0" + bytes([rng.randrange(12)]) + bytes(6)),
            (kind, data),
        ]
        chunks.insert(rng.randrange(1, len(chunks) + 1), rng.choice(more))
    else:
        chunks[i] = kind, in_bytes(data, rng)
    out = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return content[:8] + b"".join(out)


STRUCTURES: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": in_json,
    ".jsonl": in_jsonl,
    ".csv": in_csv,
    ".parquet": in_parquet,
    ".xml": in_xml,
    ".txt": in_lines,
    ".zip": in_zip,
    ".npz": in_zip,
    ".npy": in_npy,
    ".safetensors": in_safetensors,
    ".png": in_png,
}
