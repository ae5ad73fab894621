"""Questions about what is not there, drawn for a data set that has none."""

import runpy
from pathlib import Path

ABSENT = runpy.run_path(str(Path(__file__).parents[2] / "tools/absent_questions.py"))["absent_queries"]


def test_each_image_gets_one_query_that_nobody_asks_of_it_by_how_often_it_is_asked() -> None:
    """A hundred images of a dog alone, of which "cat" is asked three times as often elsewhere as "car"."""
    dogs = [{"image": f"{i}.jpg", "query": "dog"} for i in range(100)]
    rows = [*dogs, *({"image": "others.jpg", "query": query} for query in ("cat", "cat", "cat", "car"))]
    chosen = ABSENT(rows)
    assert chosen.pop("others.jpg") == "dog"
    assert set(chosen) == {row["image"] for row in dogs}
    assert set(chosen.values()) == {"cat", "car"}
    assert 60 <= list(chosen.values()).count("cat") <= 90
    assert ABSENT(rows[::-1]) == {**chosen, "others.jpg": "dog"}
    assert ABSENT(rows, seed=1) != ABSENT(rows)
