"""Visual Genome's files: where they and their images may lie, and broken ones say where they break."""

import json
import zipfile

import pytest
from hand_genome import FILES, image, importer, listed, read, thing, write_files, write_photos
from PIL import Image

from progressive_attention.data.visual_genome import import_visual_genome
from progressive_attention.data.visual_genome_files import Listed


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "images")


@pytest.fixture
def take(tmp_path, photos):
    return importer(tmp_path, photos)


@pytest.mark.parametrize("images", ["annotations", "images"])
def test_everything_may_lie_in_zips(tmp_path, images):
    folder, images = tmp_path / "annotations", tmp_path / images
    for path in (folder, images / "VG_100K_2"):
        path.mkdir(parents=True, exist_ok=True)
    write_files(folder, [image(1), image(2)], listed({1: [thing(11)], 2: [thing(21)]}, "attributes"), [])
    for file in FILES:
        with zipfile.ZipFile(folder / f"{file}.json.zip", "w") as archive:
            archive.write(folder / f"{file}.json", f"{file}_v1_2.json")
            archive.writestr(f"__MACOSX/._{file}.json", b"\0")
        (folder / f"{file}.json").unlink()
    (images / "VG_100K_2" / "2.jpg").touch()
    with zipfile.ZipFile(images / "images.zip", "w") as archive:
        archive.writestr("VG_100K/1.jpg", b"")
    import_visual_genome(folder, images, tmp_path / "out", setting="all")
    rows, rejected = read(tmp_path / "out")
    assert [(r["id"], r["image"]) for r in rows] == [(11, "images.zip/VG_100K/1.jpg"), (21, "VG_100K_2/2.jpg")]
    assert not rejected


@pytest.mark.parametrize(
    "url", ["../../secret/1.jpg", "/etc/1.jpg", "https://a.example/VG_100K/../1.jpg", "1.jpg", "..", "", "nothing.png"]
)
def test_a_url_names_a_file_in_the_folder_and_no_other(take, tmp_path, url):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "1.jpg").touch()
    _, rows, _ = take({1: [thing(11)]}, [image(1) | {"url": url}])
    assert [r["image"] for r in rows] == ["1.jpg"]


@pytest.mark.parametrize("folder", ["VG_100K", "VG_100K_2", "images.zip"])
def test_of_equal_names_the_file_in_the_urls_folder_is_taken(take, photos, folder):
    for other in ("VG_100K", "VG_100K_2"):
        (photos / other).mkdir()
        (photos / other / "1.jpg").touch()
    with zipfile.ZipFile(photos / "images.zip", "w") as archive:
        archive.writestr("elsewhere/1.jpg", b"")
    given = "elsewhere" if folder == "images.zip" else folder
    _, rows, _ = take({1: [thing(11)]}, [image(1) | {"url": f"https://a.example/{given}/1.jpg"}])
    assert [r["image"] for r in rows] == ["images.zip/elsewhere/1.jpg" if folder == "images.zip" else f"{folder}/1.jpg"]


def test_masks_are_found_beside_the_annotations(take, tmp_path):
    masks = tmp_path / "annotations" / "masks"
    masks.mkdir(parents=True)
    Image.new("P", (100, 80)).save(masks / "1.png")
    about, rows, _ = take({1: [thing(11, attributes=[]), thing(12)], 2: [thing(21)]})
    assert [(r["mask"], r["mask_value"]) for r in rows] == [("1.png", 2), (None, None)]
    assert any("1 of 2 images have no mask" in note for note in about["notes"])
    assert any("masks is used" in note for note in about["notes"])
    elsewhere, rows, _ = take({1: [thing(11)]}, masks=tmp_path / "images")
    assert rows[0]["mask"] is None
    assert elsewhere["masks"] == str(tmp_path / "images")


def test_progress_counts_images(take, monkeypatch):
    monkeypatch.setattr("progressive_attention.data.visual_genome.STEP", 2)
    shown = []
    things = {n: [thing(n)] for n in range(1, 6)}
    take(things, objects=listed(things, "objects"), progress=lambda done, total: shown.append((done, total)))
    assert shown == [(2, 5), (4, 5), (5, 5)]


GOOD = json.dumps(listed({1: [thing(11)], 2: [thing(21), thing(22)]}, "attributes"))
DEEP = "[" * 100_000
BAD_FILES = [
    ("attributes", GOOD[:-30], r"attributes\.json is broken: Input data was truncated; fetch it again"),
    ("attributes", GOOD.replace("cow", "\\ud800", 1), r"malformed: .*escape \(byte \d+\)"),
    ("attributes", GOOD + "]", r"malformed: trailing characters \(byte \d+\)"),
    ("attributes", GOOD.replace("10", "NaN", 1), r"malformed: invalid character \(byte \d+\)"),
    ("attributes", GOOD.replace("10", "1e999", 1), r"Number out of range - at `\$\.attributes\[0\]\.x`"),
    ("attributes", GOOD.replace("22", '"22"'), r"image 2: Expected .*got `str` - at `\$\.attributes\[1\]\.object_id`"),
    ("attributes", GOOD.replace("22", "1" * 20), r"Expected .* at `\$\.attributes\[1\]\.object_id`"),
    ("attributes", GOOD.replace('["red"]', '{"red": 1}', 1), r"got `object` - at `\$\.attributes\[0\]\.attrib"),
    (
        "attributes",
        GOOD.replace('"object_id": 22, ', ""),
        r"image 2: an entry without object_id - at `\$\.attributes\[1\]`",
    ),
    ("attributes", GOOD.replace('"image_id": 2, ', ""), r"\$\[1\]: an image without image_id"),
    ("attributes", GOOD.replace('"image_id": 2', '"image_id": 1'), "image 1 is there twice, expected once"),
    ("attributes", '[{"image_id": 1, "objects": []}]', r"image 1: .*missing required field `attributes`"),
    ("attributes", f'[{{"image_id": 1, "attributes": [], "x": {DEEP}{"]" * 100_000}}}]', "recursion"),
    ("objects", '[{"image_id": 1, "objects": [{"object_id": 1, "merged_object_ids": 5}]}]', "merged_object_ids"),
    ("image_data", json.dumps([image(1), image(2, width=0)]), r"image_data\.json .*image 2: .*>= 1 - at `\$\.width`"),
    ("image_data", json.dumps([image(1), image(1)]), r"image_data\.json: image 1 is there twice"),
    ("image_data", '[{"width": 1, "height": 1}]', r"image_data\.json .*\$\[0\]: an image without image_id"),
]


@pytest.mark.parametrize(("file", "content", "message"), BAD_FILES, ids=[str(i) for i in range(len(BAD_FILES))])
def test_bad_files_say_where_they_break(tmp_path, photos, file, content, message):
    good = {"image_data": [image(1), image(2)], "attributes": GOOD, "objects": "[]"}
    write_files(tmp_path, *(good | {file: content}).values())
    with pytest.raises(ValueError, match=message) as error:
        import_visual_genome(tmp_path, photos, tmp_path / "out", setting="all")
    assert f"{file}.json" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_files(tmp_path, photos):
    write_files(tmp_path, [image(1)], None)
    with pytest.raises(ValueError, match=r"has neither attributes\.json nor attributes\.json\.zip"):
        import_visual_genome(tmp_path, photos, tmp_path / "out")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        import_visual_genome(tmp_path, tmp_path / "nowhere", tmp_path / "out")


def zip_of(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytearray(path.read_bytes())


def test_bad_zips(tmp_path, monkeypatch):
    path = tmp_path / "attributes.json.zip"
    packed = zip_of(path, {"attributes.json": "[]" * 999}, zipfile.ZIP_LZMA)
    packed[70:90] = bytes(20)
    for content in (b"PK nothing", packed):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"attributes\.json\.zip is broken: as a zip .*; fetch it again"):
            Listed(tmp_path, "attributes")
    zip_of(path, {"readme.txt": ""})
    with pytest.raises(ValueError, match=r"must hold one \.json file of at most .* got none"):
        Listed(tmp_path, "attributes")
    monkeypatch.setattr("progressive_attention.data.visual_genome_files.MAX_JSON", 1000)
    zip_of(path, {"attributes.json": " " * 1001})  # and it is not unpacked
    with pytest.raises(ValueError, match=r"at most 1,000 bytes, got attributes\.json"):
        Listed(tmp_path, "attributes")
