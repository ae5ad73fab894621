"""What the tables of `make coverage` and `make mutants` say: worked by hand, and in step with the source."""

from collections import Counter

import coverage_table
import mutants
import pytest
from test_package import SOURCE, module_name, source_files


def summary(*counts: int) -> dict[str, dict[str, int]]:
    return {"summary": dict(zip(coverage_table.COUNTS, counts, strict=True))}


def test_coverage_by_group_by_hand():
    files = {
        "/home/src/progressive_attention/data/scenes.py": summary(9, 10, 3, 4),
        "src/progressive_attention/data/deep/er.py": summary(1, 2, 0, 0),
        "src/progressive_attention/network/equations.py": summary(2999, 3000, 0, 0),
        "src/progressive_attention/cli.py": summary(5, 5, 2, 2),
    }
    assert coverage_table.table(files).splitlines()[2:] == [
        "| data | 10 of 12, 83.3 % | 3 of 4, 75.0 % |",
        "| networks | 2999 of 3000, 99.9 % | none |",  # rounded down
        "| figures, pages, the other commands | 5 of 5, 100.0 % | 2 of 2, 100.0 % |",
        "| all | 3014 of 3017, 99.9 % | 5 of 6, 83.3 % |",
    ]


def test_every_part_of_a_group_is_there():
    parts = {module_name(path).split(".")[0] for path in source_files()}
    named = [part for group in coverage_table.GROUPS.values() for part in group]
    assert set(named) <= parts
    assert len(named) == len(set(named))
    assert coverage_table.group_of(str(SOURCE / "metrics" / "vaw.py")) == "metrics"
    assert coverage_table.group_of(str(SOURCE / "config.py")) == "networks"


def test_mutants_are_named_by_their_function_and_changed_lines():
    diff = "--- a.py\n+++ a.py\n def peek(self, n):\n-    return self.ahead[:n]\n+    return self.ahead[:None]"
    name = "progressive_attention.data.scenes.xǁStreamǁpeek__mutmut_3"
    assert mutants.described(name, diff) == "data.scenes.Stream.peek: return self.ahead[:None]"
    assert mutants.short_name("progressive_attention.network.equations.x_as_logit__mutmut_1") == "attention.as_logit"
    private = "progressive_attention.metrics.ranking.xǁRankingScoresǁ_write__mutmut_12"
    assert mutants.short_name(private) == "metrics.ranking.RankingScores._write"


def test_mutants_by_module_by_hand():
    found = {
        "attention": Counter(mutants=5, killed=4, survived=1),
        "data.scenes": Counter({"mutants": 2, "timed out": 2}),
    }
    assert mutants.table(found).splitlines()[2:] == [
        "| attention | 5 | 4 | 0 | 1 | 0 |",
        "| data.scenes | 2 | 0 | 2 | 0 | 0 |",
        "| all | 7 | 4 | 2 | 1 | 0 |",
    ]


def test_every_explanation_is_of_a_function_that_there_is(tmp_path):
    functions = {
        f"{module_name(path)}.{line.split('def ')[1].split('(')[0]}"
        for path in source_files()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith("def ")
    }
    for name in mutants.explained():
        module, _, function = name.partition(":")[0].rpartition(".")
        owner = module.rpartition(".")[0] if module.rpartition(".")[2][0].isupper() else module
        assert f"{owner}.{function}" in functions, name
    twice = tmp_path / "twice.toml"
    twice.write_text('[[group]]\nwhy = "a"\nmutants = ["x.y: z"]\n' * 2)
    with pytest.raises(ValueError, match=r"twice.toml must explain each mutant once, got again: x\.y: z"):
        mutants.explained(twice)
