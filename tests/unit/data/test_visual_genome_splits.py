"""Visual Genome's settings and splits: those that papers published, and those of a hash or a file."""

from hashlib import sha256

import numpy as np
import pytest
from hand_genome import importer, thing, write_photos

from progressive_attention.config import SPLITS
from progressive_attention.data.visual_genome import MIN_COUNT, PAPERS, import_visual_genome, split_by_hash


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "images")


@pytest.fixture
def take(tmp_path, photos):
    return importer(tmp_path, photos)


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["2018", "2016"])
def test_published_sizes_where_the_number_of_images_matches(setting):
    paper, notes = PAPERS[setting], []
    assert sum(paper.split) == paper.images
    ids = np.arange(paper.images + 3) * 7
    split = split_by_hash(ids, np.arange(paper.images), paper, notes)
    assert tuple(np.bincount(split[:-3])) == paper.split
    assert (split[-3:] == -1).all()
    assert notes == []
    fewer = split_by_hash(ids, np.arange(1005), paper, notes)
    assert np.bincount(fewer[:1005]).tolist() == [502, 100, 403]
    assert len(notes) == 1
    assert "1,005 images were split 50 / 10 / 40 %" in notes[0]


def test_half_and_a_tenth_are_the_published_sizes_of_2018():
    paper = PAPERS["2018"]
    assert (paper.images // 2, paper.images // 10) == paper.split[:2]


def test_split_is_a_function_of_the_ids_alone():
    ids = np.array([7, 1, 2407890, 3, 12, 5, 6, 4, 9, 10])
    split = split_by_hash(ids, np.arange(10), None, [])
    by_hand = sorted(ids.tolist(), key=lambda i: sha256(str(i).encode()).hexdigest())
    assert [SPLITS[split[list(ids).index(i)]] for i in by_hand] == ["train"] * 5 + ["validation"] + ["test"] * 4
    assert by_hand == [9, 10, 4, 3, 12, 1, 7, 2407890, 6, 5]  # in every release: no image changes sides
    back = split_by_hash(ids[::-1], np.arange(10), None, [])
    assert back[::-1].tolist() == split.tolist()


def test_an_image_is_in_one_split(take):
    told, rows, _ = take({n: [thing(10 * n), thing(10 * n + 1)] for n in range(1, 10)})
    assert all(len({r["split"] for r in rows if r["image"] == f"{n}.jpg"}) == 1 for n in range(1, 10))
    assert [part["images"] for part in told["counts"]["splits"].values()] == [4, 0, 5]


def test_splits_from_a_file(take, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "splits.json").write_text('{"train": [2], "test": [1, 55]}')
    told, rows, rejected = take({1: [thing(11)], 2: [thing(21)], 3: [thing(31)]})
    assert [(r["id"], r["split"]) for r in rows] == [(11, "test"), (21, "train")]
    assert [(r["id"], r["reason"]) for r in rejected] == [(31, "in no split")]
    assert any("1 images that image_data.json lacks" in note for note in told["notes"])
    assert any("splits.json is used" in note for note in told["notes"])
    other = tmp_path / "parts.json"
    other.write_text('{"validation": [3]}')
    assert [r["id"] for r in take({1: [thing(11)], 3: [thing(31)]}, splits=other)[1]] == [31]


BAD_SPLITS = [
    ('{"train": [1, 2], "test": [2]}', "image 2 is there 2 times, expected once"),
    ('{"train": [1], "dev": [2]}', "unknown field `dev`"),
    ('{"train": ["1"]}', r"Expected `int`, got `str` - at `\$.train\[0\]`"),
    ("[1, 2]", "Expected `object`, got `array`"),
    ('{"train": [1', "truncated"),
]


@pytest.mark.parametrize(("text", "told"), BAD_SPLITS)
def test_bad_splits(take, tmp_path, text, told):
    path = tmp_path / "parts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"parts\.json.*{told}"):
        take({1: [thing(11)]}, splits=path)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_bad_settings_and_nothing_left(take, tmp_path):
    with pytest.raises(ValueError, match="unknown setting '2017'; known: 2018, 2016, all"):
        take({1: [thing(11)]}, setting="2017")
    with pytest.raises(ValueError, match="min_count must be >= 1, got 0"):
        take({1: [thing(11)]}, min_count=0)
    with pytest.raises(ValueError, match=r"nothing is left .*\(no attributes: 1, class too rare: 1\).* below 101"):
        take({1: [thing(11), thing(12, attributes=[])]}, setting="2018")
    with pytest.raises(ValueError, match="nothing is left"):
        take({1: []})
    with pytest.raises(ValueError, match=r"\(no name: 1\); an object needs a name, attributes and a box inside"):
        take({1: [thing(11, name=None)]})
    with pytest.raises(ValueError, match=r"\(image file missing: 1\); is .*images the folder with their images"):
        take({12: [thing(11)]})
    assert not list(tmp_path.glob("out*"))
    take({1: [thing(11)]})
    with pytest.raises(ValueError, match="is there already and not empty"):
        import_visual_genome(tmp_path / "annotations", tmp_path / "images", tmp_path / "out0", setting="all")


def test_a_setting_is_told_beside_its_paper(take):
    told, _, _ = take({1: [thing(i) for i in range(MIN_COUNT["2018"])]}, setting="2018")
    assert told["settings"]["min_count"] == 101
    assert "1 (827) classes, 1 (749) attributes, 101 (667,882) labels, 1 (86,674) images" in told["notes"][-1]
