"""Images below one folder: nothing outside is ever opened, and nothing broken goes by unnamed."""

import os
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from progressive_attention.data import image_root
from progressive_attention.data.image_root import ImageRoot


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def read(root, path):
    with root.open(path) as file:
        return file.read()


@pytest.fixture
def folder(tmp_path):
    """A root with files in a folder and in two zips, and a secret beside it."""
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.jpeg", "sub/deep/a.PNG"):
        (root / name).write_bytes(name.encode())
    zipped(root / "images.zip", {"a.png": b"1", "VG_100K/2.jpg": b"2", "VG_100K/readme.md": b"3", "VG_100K/": b""})
    zipped(root / "images2.zip", {"2.jpg": b"4"}, zipfile.ZIP_STORED)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return root


def test_files_are_listed_folders_first(folder):
    root = ImageRoot(folder)
    assert list(root.files()) == [
        *("a.PNG", "b.jpg", "sub/c.jpeg", "sub/deep/a.PNG"),
        *("images.zip/a.png", "images.zip/VG_100K/2.jpg", "images2.zip/2.jpg"),
    ]
    assert root.by_name == {
        "a.PNG": ["a.PNG", "sub/deep/a.PNG"],
        "b.jpg": ["b.jpg"],
        "c.jpeg": ["sub/c.jpeg"],
        "a.png": ["images.zip/a.png"],
        "2.jpg": ["images.zip/VG_100K/2.jpg", "images2.zip/2.jpg"],
    }
    paths = ["gone.jpg", "sub", "images.zip/gone.png", "images.zip/VG_100K", "../secret.jpg", *root.files()]
    assert [path for path in paths if root.has(path)] == paths[5:]


def test_files_are_opened_wherever_they_are(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    for root in (ImageRoot(str(folder)), ImageRoot(tmp_path / "link")):
        for name in ("b.jpg", "sub/deep/a.PNG", "notes.txt"):
            assert read(root, name) == name.encode()
        assert read(root, "./sub/../b.jpg") == b"b.jpg"
        assert read(root, "images.zip/a.png") == read(root, "./images.zip/a.png") == b"1"
        assert read(root, "images.zip/VG_100K/2.jpg") == b"2"
        assert read(root, "images2.zip/2.jpg") == b"4"
        assert read(root, "images.zip") == (folder / "images.zip").read_bytes()


def test_a_link_within_the_root_is_followed(folder):
    (folder / "linked.jpg").symlink_to(folder / "b.jpg")
    (folder / "short").symlink_to(folder / "sub" / "deep")
    root = ImageRoot(folder)
    assert read(root, "linked.jpg") == b"b.jpg"
    assert read(root, "short/a.PNG") == b"sub/deep/a.PNG"
    assert not [path for path in root.files() if path.startswith("short")]  # else each file would be there twice


def test_another_zip_must_be_unpacked(folder):
    zipped(folder / "photos.zip", {"a.png": b"1"})
    root = ImageRoot(folder)
    assert "photos.zip/a.png" not in root.files()
    assert not root.has("photos.zip/a.png")
    for path in ("photos.zip/a.png", "images.zip/gone.png"):
        with pytest.raises(ValueError, match=rf"{path} .*of zips only images\.zip and images2\.zip are read"):
            root.open(path)


def test_names_of_members_are_taken_as_they_are(folder):
    """Whatever a zip calls its members: it is only looked up in there."""
    members = {"../../secret.jpg": b"up", "/etc/x.jpg": b"full", "./dot.png": b"dot", "a//b.png": b"two", "Ü.jpg": b"u"}
    zipped(folder / "images2.zip", members)
    root = ImageRoot(folder)
    listed = [path for path in root.files() if path.startswith("images2.zip/")]
    assert listed == [f"images2.zip/{name}" for name in members]
    assert [read(root, path) for path in listed] == list(members.values())
    for path in listed:
        assert root.has(path)
        root.check(path)


def test_nothing_outside_is_opened(folder, tmp_path):
    for root in ("secret.jpg", "gone"):
        with pytest.raises(ValueError, match=rf"{root} is not a folder; give the one that holds the images"):
            ImageRoot(tmp_path / root)
    (tmp_path / "rooted").mkdir()  # a sibling with a longer name
    (tmp_path / "rooted" / "x.jpg").write_bytes(b"x")
    (folder / "file.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "gone.jpg").symlink_to(folder.parent / "gone.jpg")
    (folder / "away").symlink_to(folder.parent)
    (folder / "relative").symlink_to("..")
    paths = ["../secret.jpg", "sub/../../secret.jpg", "..", str(folder.parent / "secret.jpg"), "/etc/passwd"]
    paths += ["file.jpg", "gone.jpg", "away/secret.jpg", "relative/secret.jpg", "relative/root/away/secret.jpg"]
    paths += ["gone.zip/../../secret.jpg", "../rooted/x.jpg"]
    root = ImageRoot(folder)
    for path in paths:
        for use in (root.open, root.check):
            with pytest.raises(ValueError, match="lies outside .*must stay in it"):
                use(path)
    assert not any(root.has(path) for path in paths)
    root.check("sub/c.jpeg")
    for path in ("sub/../b.jpg", str(folder.resolve() / "b.jpg")):
        with pytest.raises(ValueError, match=r"write paths from .*root on, without '\.\.'"):
            root.check(path)


def test_a_name_that_leads_out_is_not_taken(folder):
    (folder / "sub" / "out.jpg").symlink_to(folder.parent / "secret.jpg")
    root = ImageRoot(folder)
    assert root.named("out.jpg") is None
    assert root.named("c.jpeg") == "sub/c.jpeg"
    (folder / "sub" / "deep" / "out.jpg").symlink_to(folder / "b.jpg")
    assert ImageRoot(folder).named("out.jpg") == "sub/deep/out.jpg"


def test_a_zip_that_is_a_link_out_is_not_opened(folder, tmp_path):
    (folder / "images.zip").unlink()
    (folder / "images.zip").symlink_to(zipped(tmp_path / "away.zip", {"a.png": b"secret"}))
    with pytest.raises(ValueError, match="lies outside"):
        ImageRoot(folder).open("images.zip/a.png")


def test_links_in_a_circle(folder):
    (folder / "one.jpg").symlink_to("two.jpg")
    (folder / "two.jpg").symlink_to("one.jpg")
    root = ImageRoot(folder)
    with pytest.raises(ValueError, match=r"'one\.jpg' leads nowhere|one\.jpg can't be opened"):
        root.open("one.jpg")
    assert not root.has("one.jpg")


STRANGE = ["", ".", "/", "//", "a\0b.jpg", "x" * 5000 + ".jpg", "b.jpg/c.jpg", "sub", "~/b.jpg", "no"]
SAYS = r"is no file|can't be opened|does not exist; is .*root the right|leads nowhere|lies outside"


@pytest.mark.parametrize("path", STRANGE, ids=lambda path: repr(path[:12]))
def test_strange_paths(folder, path):
    root = ImageRoot(folder)
    with pytest.raises(ValueError, match=SAYS):
        root.open(path)
    assert not root.has(path)


PARTS = ["..", ".", "", "sub", "away", "images.zip", "secret.jpg", "b.jpg", "a.png"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PARTS), max_size=6))
def test_no_path_leads_out(folder, parts):
    if not (folder / "away").is_symlink():
        (folder / "away").symlink_to(folder.parent)
    root, path = ImageRoot(folder), "/".join(parts)
    try:
        assert read(root, path) != b"secret"
    except ValueError:
        assert not root.has(path)
    else:
        assert root.has(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are a thing of Unix")
@pytest.mark.timeout(30)
def test_a_pipe_is_no_file(folder):
    """Opening one would wait for ever."""
    os.mkfifo(folder / "pipe.jpg")
    with pytest.raises(ValueError, match=r"pipe\.jpg is no file"):
        ImageRoot(folder).open("pipe.jpg")


@pytest.mark.parametrize("content", [b"", b"no zip", None], ids=["empty", "text", "cut"])
def test_a_broken_zip_is_named(folder, content):
    path = folder / "images.zip"
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    root = ImageRoot(folder)
    assert read(root, "b.jpg") == b"b.jpg"  # files do without
    for use in (lambda: root.open("images.zip/a.png"), lambda: list(root.files())):
        with pytest.raises(ValueError, match=r"images\.zip can't be read as a zip \(.*\); fetch it again"):
            use()


def test_a_member_larger_than_any_photograph(folder, monkeypatch):
    monkeypatch.setattr(image_root, "MAX_MEMBER", 1000)
    zipped(folder / "images.zip", {"fits.png": bytes(1000), "bomb.png": bytes(1001)})
    root = ImageRoot(folder)
    assert read(root, "images.zip/fits.png") == bytes(1000)
    with pytest.raises(ValueError, match=r"images\.zip/bomb\.png unpacks to 1,001 bytes, expected at most 1,000"):
        root.open("images.zip/bomb.png")


def test_a_bomb_that_lies_about_its_size(folder):
    """Stated as 50 bytes, it would unpack to 40 million."""
    path = zipped(folder / "images.zip", {"bomb.png": bytes(40_000_000)})
    size = struct.pack("<I", 40_000_000)
    content = path.read_bytes()
    assert content.count(size) == 2  # in the member's header and in the directory
    path.write_bytes(content.replace(size, struct.pack("<I", 50)))
    root = ImageRoot(folder)
    assert root.has("images.zip/bomb.png")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"images\.zip/bomb\.png can't be unpacked \(Bad CRC-32"):
        root.open("images.zip/bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
