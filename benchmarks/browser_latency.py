"""One question in the browser's page, in onnxruntime and in Predictor, in turn, so that all share the machine's load.

    pan export --weights mref-pan --format web --out runs/mref.html
    OMP_NUM_THREADS=1 python benchmarks/browser_latency.py runs/mref.html

Prints the median and the smallest of 50 after 10 that don't count. Needs Chromium; one thread each.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from playwright.sync_api import sync_playwright

from progressive_attention import Predictor
from progressive_attention.data.scenes import SceneSource
from progressive_attention.predict import export_web as web_page

WEIGHTS, QUERY, FIRST, COUNT = "mref-pan", "4", 10, 50
ASK = f"""async () => {{ const started = performance.now(); const answer = await ask(state.pixels, "{QUERY}");
  showAnswer(answer); return [answer.milliseconds, performance.now() - started]; }}"""


def milliseconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help=f"what `pan export --weights {WEIGHTS} --format web` has written")
    file = parser.parse_args().page.resolve()
    torch.set_num_threads(1)
    source = SceneSource("mref", "test")
    image, _ = source.render(source.scene(0))
    predictor = Predictor(WEIGHTS, "cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(web_page.unpack(file.read_text(encoding="utf-8"), "model"), options)
    given = {"image": image.transpose(2, 0, 1)[None].astype(np.float32) / 255, "query": np.array([int(QUERY)])}
    asked: dict[str, list[float]] = {
        name: [] for name in ("page, network alone", "page, with all maps drawn", "Predictor.ask", "onnxruntime")
    }
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        opening = milliseconds(lambda: (page.goto(file.as_uri()), page.wait_for_selector("#bars li")))
        for _ in range(FIRST + COUNT):
            ours = milliseconds(lambda: predictor.ask(image, QUERY)), milliseconds(lambda: session.run(None, given))
            for times, value in zip(asked.values(), (*page.evaluate(ASK), *ours), strict=True):
                times.append(value)
        browser.close()
    print(f"from opening the page to its first answer: {opening / 1000:.1f} s")
    for name, times in asked.items():
        print(f"{name:26s} median {median(times[FIRST:]):6.2f} ms, smallest {min(times[FIRST:]):6.2f} ms")


if __name__ == "__main__":
    main()
