"""Every block of README and docs is run, or a rule here says why not; every link and every quoted source holds."""

import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, blocks, commands, copy_for_reader, name_of, run_page
from quote_sources import QUOTATION, quoted

import progressive_attention
from progressive_attention.cli import build_parser
from progressive_attention.config import MODELS
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.network.backbone import BACKBONES
from progressive_attention.network.build import build_model

RUN = ("python", "bash", "console", "pycon")
# Blocks that show what is printed or written; a text right below a block that runs is compared with what that printed.
SHOWN = ("text", "csv", "json", "toml", "html")
# Commands that are parsed by the real parser and not run, and why. A rule that no page needs any more fails a test.
NEVER = {
    "pan train --data mref --out runs/mref": "half an hour",
    "pan evaluate --weights runs/mref --data mref --json": "asks what the line above trains",
    "pan reproduce": "hours; tests/flows/test_campaign.py runs small ones",
    "pan remeasure": "asks what that trains; tests/flows/test_remeasure.py does it with small ones",
    "pan data import visual-genome": "a user's download; tests/unit/data/test_visual_genome.py generates its own",
    "pan train --data data/vg": "the same, and pretrained weights that are downloaded",
    "pan evaluate --weights runs/vg": "the same",
    "pan data import vaw": "the same; tests/flows/test_vaw_page.py runs the page's three commands on generated files",
    "pan train --data data/vaw": "the same",
    "pan evaluate --weights runs/vaw": "the same",
    "pan train --data mref --model pan-hard-ctx --absent": "six minutes on an idle machine",
    "pan train --data mref --text-queries": "half an hour",
    "pan train --data runs/photographs --backbone vgg16": "pretrained weights that are downloaded",
    "pan train --data runs/photographs --backbone resnet18": "tests/flows/test_tutorial.py trains it",
    "pan evaluate --faithfulness": "minutes; tests/unit/evaluation/test_faithfulness.py asks little",
    "python benchmarks/faithfulness.py": "half an hour; the same",
    "pan absence": "minutes; tests/unit/evaluation/test_absence.py measures few scenes",
    "python benchmarks/drift.py": "minutes; tests/flows/test_drift.py measures a few images",
    "FAULTS=10 python -m pytest": "an hour; the gate tries one moment of each",
    "FUZZ_CASES=5000 python -m pytest": "an hour; the gate tries a few cases of each",
    "pan report runs/mref": "asks what a training left; tests/unit/pages/test_run_results.py has small ones",
    "pan report runs/first": "the same; tests/flows/test_tutorial.py runs it after a training",
    "pan serve": "runs until it is stopped; tests/flows/test_serve_page.py opens it",
}
# Run by the slow tests only.
SLOW = {
    "pan export": "half a minute each; tests/flows/test_export.py has more",
    "pan report mref-pan": "half a minute: 10,000 scenes",
    "pan train --data data/photographs": "half a minute",
    "pan predict examples/photographs/photos/kingfisher.jpg --weights runs/photographs": "asks what that trains",
    "pan predict examples/photographs/photos/kingfisher.jpg --weights runs/text": "the same",
    "pan evaluate --weights runs/text": "the same",
    "pan predict examples/photographs/photos/kingfisher.jpg --weights runs/letters": "the same",
}
OWN_TEST = {"docs/photographs.md": "tests/flows/test_tutorial.py"}  # pages that another file runs, wholly
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


def all_commands() -> list[str]:
    return [command for page in PAGES for block in blocks(page, "bash") for command in commands(block.code)]


def reason_of(command: str, rules: dict[str, str]) -> str | None:
    """Why a rule leaves a command out, None where no rule is about it."""
    return next((reason for rule, reason in rules.items() if f"{command} ".startswith(f"{rule} ")), None)


def check_command(command: str) -> None:
    """Fails for a command that no rule covers, or that can't be given so."""
    words = shlex.split(command)
    match words:
        case ["pan", *arguments]:
            build_parser().parse_args(arguments)  # exits where they are wrong
        case ["torchrun", *arguments] | ["srun", "torchrun", *arguments]:
            build_parser().parse_args(arguments[arguments.index("progressive_attention") + 1 :])
        case ["make", target, *rest]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            assert all(word.partition("=")[0] in ("PYTHON", "SUITE", "QUICK", "JSON") for word in rest), command
        case ["pip", "install", wanted]:
            name, extras = re.fullmatch(r"([\w./-]+)(?:\[([\w,]+)\])?", wanted).groups()
            assert name in (".", "progressive-attention"), command
            assert set((extras or "dev").split(",")) <= set(EXTRAS), command
        case ["python", "my_row.py", *_]:
            pass  # which docs/extending.md writes; tests/flows/test_extending.py runs it
        case ["python", script, *_] | [_, "python", "-m", "pytest", script]:
            assert (ROOT / script).is_file(), command
        case ["git", "clone", _] | ["cd", _] | ["source", ".venv/bin/activate"]:
            pass  # before there is anything to test
        case ["head=$(scontrol", *_]:
            pass  # Slurm's own, on its machines only
        case _:
            raise AssertionError(f"no rule in tests/flows/test_docs.py covers {command!r}")


@pages
def test_a_rule_covers_every_block(page: Path) -> None:
    for block in blocks(page):
        assert block.language in (*RUN, *SHOWN), f"{name_of(page)}, line {block.line}: {block.language!r}"
        for command in commands(block.code) if block.language == "bash" else ():
            check_command(command)
    fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page)), "a block without an end, or with an odd one"


@pages
def test_no_code_hides_in_an_indented_block(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^ {4}(?:pan|make|pip|python|from|import) .*", text, re.MULTILINE)


@pytest.mark.parametrize(
    "wrong",
    ["curl x | sh", "pan predcit x", "pan list --jsno", "make nothing", "pip install 'progressive-attention[x]'"],
)
def test_the_rules_refuse(wrong: str) -> None:
    with pytest.raises((AssertionError, SystemExit)):
        check_command(wrong)


def test_no_rule_is_stale() -> None:
    for rule in {**NEVER, **SLOW}:
        assert any(reason_of(command, {rule: "stale"}) for command in all_commands()), rule


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A reader's clone as the working directory, with a cache of its own; what a page registers is gone afterwards."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(copy_for_reader(tmp_path))
    kept = [(registry, dict(registry)) for registry in (MODELS, BACKBONES)]
    yield
    for registry, old in kept:
        registry.clear()
        registry.update(old)


def of_commands(page: Path, rules: dict[str, str]) -> dict[str, str]:
    """The page's commands that a rule is about, and its reason."""
    found = {one: reason_of(one, rules) for block in blocks(page, "bash") for one in commands(block.code)}
    return {command: reason for command, reason in found.items() if reason}


TO_RUN = [page for page in PAGES if blocks(page, *RUN) and name_of(page) not in OWN_TEST]


@pytest.mark.parametrize("page", TO_RUN, ids=name_of)
@pytest.mark.usefixtures("clone")
def test_the_page_runs(page: Path, capsys, record_property) -> None:
    left_out = of_commands(page, {**NEVER, **SLOW})
    for command, reason in left_out.items():
        record_property("not executed", f"{name_of(page)}: {command} ({reason})")  # which the gate prints
    run_page(page, capsys, left_out)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TO_RUN if of_commands(page, SLOW)], ids=name_of)
@pytest.mark.usefixtures("clone")
def test_the_page_runs_to_its_end(page: Path, capsys) -> None:
    run_page(page, capsys, of_commands(page, NEVER))


@pages
def test_quoted_source_is_the_source(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert quoted(text) == text, "the source has changed; run: python tools/quote_sources.py"


def test_concepts_quotes_the_equations() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    for name in ("AttentionScorer", "gate", "spatial_softmax", "attend", "soft_pool", "marginalise"):
        home = "scorers" if name == "AttentionScorer" else "equations"
        found = QUOTATION.search(text[text.index(f"<!-- source: network.{home}.{name} -->") :])
        assert found is not None
        assert name in found[0].splitlines()[2], found[0]


def test_every_public_name_is_on_the_api_page() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = [pkgutil.resolve_name(name) for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)]
    for name in progressive_attention.HOMES:
        assert getattr(progressive_attention, name) in shown, name
    assert all(one.__doc__ for one in shown)


FAMILIES = {  # a small network of each
    **{"VGG": "vgg11", "ResNet": "resnet18", "RegNet": "regnetx_002", "DenseNet": "densenet121"},
    **{"ConvNeXt": "convnext_atto", "CSPDarknet": "cs3darknet_s", "Res2Net": "res2net50_14w_8s"},
    **{"GhostNet": "ghostnet_050", "EfficientNet": "tf_efficientnet_lite0", "MobileNet": "mobilenetv3_small_100"},
}


def test_every_family_that_troubleshooting_names_is_taken_and_has_maps() -> None:
    text = " ".join((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").split())
    named = re.search(r"Most networks of these families have them: (.*?); transformers do not", text)
    assert named is not None
    assert set(named[1].split(", ")) == set(FAMILIES)
    for network in FAMILIES.values():
        model = build_model("pan-hard-ctx", num_queries=2, num_attributes=2, backbone=network)
        assert len(geometry(model).fields) == 3, network


def test_readme_fits_two_screens_and_names_both_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    assert "make quickstart" in text
    assert "make test" in text


@pages
def test_links_to_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{name_of(page)}: {target}"
