"""Measure the accuracy and attention of a trained network.

examples:
  pan evaluate --weights mref-pan --data mref
  pan evaluate --weights runs/mine --data my-folder --json
  pan evaluate --weights mref-san --data scenes.npz --json
  pan evaluate --weights mref-pan --faithfulness --limit 100
"""

import argparse
import json

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan evaluate``."""
    add = parser.add_argument
    shared.add_shared(parser, "--weights", "--data", "--query-embeddings", "--device", "--json")
    split_help = "default: test; all of an .npz; of a folder also train,validation"
    add("--split", type=shared.splits, metavar="SPLIT", help=split_help)
    faithful_help = "also test whether the maps are faithful: docs/faithfulness.md"
    add("--faithfulness", action="store_true", help=faithful_help)
    limit_help = "questions for --faithfulness, one per image (default: 1000)"
    add("--limit", type=shared.positive, metavar="N", help=limit_help)
    rows_help = "FILE.parquet for one row per question; the figures go beside it as .json"
    add("--rows", type=shared.out_file(".parquet"), metavar="FILE", help=rows_help)
    shared.scene_options(parser, trained=True)


def run(arguments: argparse.Namespace) -> None:
    """Measure, write rows and figures, and print the figures."""
    from rich.console import Console

    from progressive_attention.data.sources import unknown_queries
    from progressive_attention.evaluation import kept
    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.evaluation.faithfulness import LIMIT, evaluate_faithfulness
    from progressive_attention.evaluation.summaries import (
        faithfulness_tables,
        queries_table,
        summary_table,
        words_asked,
    )
    from progressive_attention.predict.text_queries import check_reads_vectors, encoder_of, knowing
    from progressive_attention.processes import is_first
    from progressive_attention.progress import counting
    from progressive_attention.saved import load

    console, device = Console(stderr=True, quiet=not is_first()), pick_device(arguments.device)
    trained = load(arguments.weights, device)
    data, encode = kept.data_of(arguments.data, trained.about), encoder_of(arguments.query_embeddings)
    check_reads_vectors(trained, encode)
    if arguments.rows:
        kept.check_rows(arguments.rows)
    if arguments.limit and not arguments.faithfulness:
        raise ValueError("--limit is the number of questions for --faithfulness; add that, or leave it out")
    options = shared.scene_arguments(arguments, kept.source_of(trained.about, data), data)
    source = {"data": data, "split": arguments.split, **options, "image_size": trained.model.config.image_size}
    kept.check_untrained(trained.about, source)
    questions = kept.load_with_bar(console, **source)
    new = [] if trained.model.query_vectors is None else unknown_queries(questions, trained.query_names)
    trained = knowing(trained, new, encode)
    figures, table = kept.measure(trained, questions, source, device, console)
    if new:
        figures["queries_asked_by_text"] = new
    if arguments.faithfulness:
        with counting(console, f"deleting and inserting, {questions.name}", "questions") as progress:
            some = {"limit": arguments.limit or LIMIT, "seed": options["seed"], "progress": progress}
            figures.update(evaluate_faithfulness(trained, questions, device, **some))
    if not is_first():
        return
    rows = arguments.rows or kept.rows_path(arguments.weights, questions.name)
    kept.write_measured(rows, (figures, table), arguments.weights, questions, source)
    if arguments.json:
        print(json.dumps(figures))
        return
    title = f"{arguments.weights} on {questions.name}"
    tables = [summary_table(figures, title)]
    if figures.get("weighted_mean_ap", 0) is None:  # nothing is ranked: the set measures attention
        tables.append(queries_table(figures, title))
    if arguments.faithfulness:
        tables += faithfulness_tables(figures)
    Console().print(*tables)
    print(
        *words_asked(figures), f"one row per question: {rows}", f"these figures: {rows.with_suffix('.json')}", sep="\n"
    )
