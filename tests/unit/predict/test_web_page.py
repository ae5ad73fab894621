"""Web pages with a network inside: what they hold, and that what ships of others is what they published."""

import csv
import io
import json
import lzma
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from tiny_models import PIXELS, build
from torch.testing import assert_close

from progressive_attention.data.backgrounds import PACK
from progressive_attention.data.scenes import COLOURS, SceneSource
from progressive_attention.files import read_json
from progressive_attention.maps.pixel_maps import as_values
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.predict import export_web as web_page
from progressive_attention.predict.export import (
    OneQuestion,
    export,
    largest_difference,
    notes,
    random_questions,
    run_web,
)
from progressive_attention.saved import Trained, describe

ROOT = Path(__file__).parents[3]
ABOUT = {"name": "pan-hard-ctx", "data": "mref", "protocol": "paper", "seed": 0, "test": {"accuracy": 0.5}}


@pytest.fixture
def small_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few bytes in place of onnxruntime-web, so that pages are made at once."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in web_page.RUNTIME_FILES:
        (folder / f"{name}.xz").write_bytes(lzma.compress(f"content of {name}".encode()))
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        (folder / name).write_text(f"text of {name}\n", encoding="utf-8")
    (folder / "onnxruntime-web.json").write_text('{"version": "9.8.7"}', encoding="utf-8")
    monkeypatch.setattr(web_page, "RUNTIME", folder)
    return folder


# --- what ships of others ---------------------------------------------------------------------------------------------


def test_what_ships_of_onnxruntime_web_is_what_was_published() -> None:
    about = read_json(web_page.RUNTIME / "onnxruntime-web.json")
    files = {name: lzma.decompress((web_page.RUNTIME / f"{name}.xz").read_bytes()) for name in web_page.RUNTIME_FILES}
    assert {name: sha256(content).hexdigest() for name, content in files.items()} == about["sha256"]
    assert f"ONNX Runtime Web v{about['version']}".encode() in files["ort.wasm.bundle.min.mjs"]
    assert files["ort-wasm-simd-threaded.wasm"].startswith(b"\0asm")
    notice = " ".join((ROOT / "NOTICE").read_text(encoding="utf-8").split())
    assert f"onnxruntime-web {about['version']}" in notice
    assert "MIT License" in (web_page.RUNTIME / "LICENSE").read_text(encoding="utf-8")
    shipped = {path.name for path in web_page.RUNTIME.iterdir()}
    texts = {"LICENSE", "ThirdPartyNotices.txt", "onnxruntime-web.json"}
    assert shipped == texts | {f"{name}.xz" for name in web_page.RUNTIME_FILES}
    assert sum(path.stat().st_size for path in web_page.RUNTIME.iterdir()) < 3_000_000


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_page_is_one_file_with_all_inside(small_runtime: Path) -> None:
    about, model = {"query_names": ["</script><b>", "große", "$1 \\1"]}, bytes(range(256)) * 9
    page = web_page.render(about, model)
    assert json.loads(web_page.unpack(page, "about")) == about
    assert web_page.unpack(page, "model") == model
    assert web_page.unpack(page, "runtime-module") == b"content of ort.wasm.bundle.min.mjs"
    assert web_page.unpack(page, "runtime-wasm") == b"content of ort-wasm-simd-threaded.wasm"
    assert web_page.unpack(page, "licence-texts") == b"text of LICENSE\n\n\ntext of ThirdPartyNotices.txt\n"
    for path in web_page.SOURCES.iterdir():
        text = path.read_text(encoding="utf-8")
        assert path.suffix == ".html" or text in page
        assert len(text.splitlines()) <= 350
    assert "default-src 'none'" in page
    for outside in ("http://", "https://", "src=", "<link", "@import", "url("):
        assert outside not in page
    assert web_page.render(about, model) == page


@pytest.mark.parametrize("name", ["pan-hard-ctx", "stn-s", "concat"])
def test_layers_are_placed_as_the_network_places_them(name: str) -> None:
    model = build(name).float().eval()
    where = geometry(model)
    prediction = model(*random_questions(model, 1))
    cells = [attention.shape[-2:] for attention in prediction.attention]
    said = web_page.page_data(where, cells, ABOUT)
    assert len(said["layers"]) == len(cells) == (4 if name == "pan-hard-ctx" else 0)
    for attention, field, layer in zip(prediction.attention, where.fields, said["layers"], strict=True):
        rows, columns = (torch.tensor(layer[axis], dtype=torch.float64) for axis in ("rows", "columns"))
        one_by_one = torch.zeros(PIXELS, PIXELS, dtype=torch.float64)
        for i, line in enumerate(attention[0, 0].double()):
            for j, value in enumerate(line):
                one_by_one += value * torch.outer(rows[:, i], columns[:, j])
        assert_close(one_by_one, as_values(attention, field, (PIXELS, PIXELS))[0, 0])


@pytest.mark.parametrize("style", ["mref", "mbg"])
def test_scenes_are_the_first_of_the_test_split(style: str) -> None:
    shown = web_page.scenes({**ABOUT, "data": style, "seed": 5})
    source = SceneSource(style, "test", "paper", 5)
    with open(PACK / "ATTRIBUTION.csv", newline="", encoding="utf-8") as file:
        credits = [(row["author"], row["licence"]) for row in csv.DictReader(file)]
    assert len(shown) == web_page.SCENES
    for index, one in enumerate(shown):
        scene = source.scene(index)
        image, owner = source.render(scene)
        assert (np.asarray(Image.open(io.BytesIO(b64decode(one["picture"])))) == image).all()
        for label, (digit, given) in enumerate(zip(scene.digits, one["digits"], strict=True), 1):
            assert given["query"] == str(digit.number)
            assert given["attribute"] == COLOURS[digit.colour]
            rows, columns = np.nonzero(owner == label)
            x0, y0, x1, y1 = given["box"]
            assert x0 <= columns.min() <= columns.max() < x1
            assert y0 <= rows.min() <= rows.max() < y1
        named = [1 for author, licence in credits if f"by {author}, {licence}" in one["credit"]]
        assert bool(named) == (style == "mbg")


def test_a_network_of_ones_own_has_no_scenes_and_names_no_folder() -> None:
    model = build("concat").eval()
    about = describe(model.config, tuple("01234"), tuple("abc"), name="concat", data="/home/me/photographs")
    said = web_page.page_data(geometry(model), [], about)
    assert (said["scenes"], said["data"], said["accuracy"], said["model"]) == ([], None, None, "concat")
    assert web_page.page_data(geometry(model), [], {**about, "name": None})["model"] == "a network"


def test_our_photographs_are_shown_where_a_network_knows_their_words() -> None:
    """Each with its author and licence, and a question that it knows."""
    shown = web_page.photographs({"query_names": ["sky", "bird"]})
    assert len(shown) == web_page.SCENES
    harrier = ROOT / "examples/photographs/photos/harrier.jpg"
    assert b64decode(shown[0]["picture"]) == harrier.read_bytes()
    assert shown[0]["credit"] == "Photograph: northern harrier by Frank Schulenburg, CC-BY-SA-4.0"
    assert {photograph["query"] for photograph in shown} <= {"sky", "bird"}


def test_export_writes_a_page_whose_network_was_checked(small_runtime: Path, tmp_path: Path) -> None:
    names = tuple("01234"), ("red", "große", "wet")
    model = build("san").eval()
    network = Trained(model, *names, describe(model.config, *names, name="san", data="mref"))
    assert 0 < export(network, tmp_path / "it.html", "web") <= 1e-4
    page = (tmp_path / "it.html").read_text(encoding="utf-8")
    inside = onnxruntime.InferenceSession(web_page.unpack(page, "model"), providers=["CPUExecutionProvider"])
    assert inside.get_modelmeta().custom_metadata_map == notes(OneQuestion(network))
    about = json.loads(web_page.unpack(page, "about"))
    assert about.items() >= {name: json.loads(value) for name, value in notes(OneQuestion(network)).items()}.items()
    assert about["runtime_version"] == "9.8.7"
    assert [len(layer["rows"][0]) for layer in about["layers"]] == [2]
    assert largest_difference(OneQuestion(network), run_web(tmp_path / "it.html")) <= 1e-4
    with pytest.raises(ValueError, match=r"a file of format web must end in \.html, got "):
        export(network, tmp_path / "it.htm", "web")
