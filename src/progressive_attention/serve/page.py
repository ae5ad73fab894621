"""The page's layout and events (Gradio), and its server. The page keeps no state: an event brings all that it needs.

Gradio's own limits hold: sizes of uploads, a bounded queue, uploads deleted after an hour, this machine only.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.themes import Default
from PIL import Image

from progressive_attention.config import STYLES
from progressive_attention.data.scenes import Scene, SceneSource
from progressive_attention.predict.export_web import digits_of
from progressive_attention.predict.open_photographs import open_photographs
from progressive_attention.serve.networks import Networks, as_json
from progressive_attention.serve.panel import ASSETS, answers, attention, legend, notice
from progressive_attention.serve.scene import (
    CASES,
    LARGEST_SEED,
    SETS,
    Sliders,
    arranged,
    clicked,
    most,
    truth_of,
)

UPLOAD_BYTES = 8 * 2**20
WAITING = 200  # questions in the queue; one more gets the answer that it is full
DELETE = (300, 3600)  # seconds: how often, and how old pictures are then
NOBODY = "nobody"
TOGETHER: dict[str, Any] = {"concurrency_id": "ask", "concurrency_limit": 2}  # answers computed at a time
HIDDEN: dict[str, Any] = {"api_visibility": "private", **TOGETHER}
AS_SENT: dict[str, Any] = {"preprocess": False}  # Gradio would open the picture, whatever its size
SHOW_QUESTION = "() => document.querySelector('#question').scrollIntoView({behavior: 'smooth'})"
SET_OPACITY = "value => document.documentElement.style.setProperty('--opacity', value)"
NEXT_SEED = f"seed => (seed + 1) % {LARGEST_SEED + 1}"
INTRODUCTION = """
<h1>Progressive attention</h1>
<p class='soft'>Click a digit to ask for its colour, or drop your own picture and type a query. Gates on several layers
close on what is not asked for; the last layer chooses where to look.</p>
"""


@contextmanager
def serving(networks: Networks, host: str, port: int) -> Iterator[str]:
    """The page at ``host``:``port`` while the block lasts; gives its address.

    Raises ValueError for a port or host that can't be had. Pictures lie in a folder of its own, which vanishes.
    """
    check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="pan-serve-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(networks, Path(folder)).queue(max_size=WAITING, api_open=False)
        try:
            _, address, _ = page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                footer_links=[],
                max_file_size=UPLOAD_BYTES,
                theme=Default(font=("system-ui", "sans-serif"), font_mono=("monospace",)),  # none is fetched
                css_paths=ASSETS / "page.css",
            )
            yield address
        finally:
            page.close(verbose=False)


def check_free(host: str, port: int) -> None:
    """Raises ValueError unless a server can listen there; Gradio's would end with a traceback."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"can't listen at {host} port {port} ({error}); give another --port, or --host") from error


class Desk:
    """What the events do; ``folder`` is where Gradio keeps what was uploaded, or drawn here."""

    def __init__(self, networks: Networks, folder: Path) -> None:
        self.networks, self.folder = networks, folder
        self.source = SceneSource("mbg", "test")  # its digits serve black scenes as well
        self.cases = [case.drawn() for case in CASES]
        words = {query: name for name in reversed(networks.names) for query in networks.words(name)}
        self.photographs = open_photographs(words)
        self.knows = [words[photograph.questions[0].query] for photograph in self.photographs]  # which network
        data = networks.predictors[networks.names[0]].trained.about.get("data")
        self.style = data if data in STYLES else STYLES[0]  # what the first network learnt from

    def ask(self, picture: Any, query: Any, weights: Any) -> dict[str, Any]:
        """For scripts: the answer of one network to one question about a picture."""
        try:
            return as_json(self.networks.ask(picture, self.folder, query, weights))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def answer(self, picture: Any, query: str, first: str, second: str, digits: list[dict[str, Any]] | None) -> Any:
        """Answers and attention of one network, or of two; a readable message where there is no answer."""
        names = [first] if second in (NOBODY, first) else [first, second]
        try:
            asked = [self.networks.ask(picture, self.folder, query, name) for name in names]
        except ValueError as error:
            return notice(str(error)), ""
        return answers(asked, truth_of(digits, asked[0].answer.query)), attention(asked)

    def click(self, digits: list[dict[str, Any]] | None, event: gr.EventData) -> Any:
        """The query of the digit clicked."""
        query = None if digits is None else clicked(digits, event.x, event.y)
        if query is None:
            own = "Clicks ask about digits of drawn scenes; about your own picture type a query."
            gr.Info(own if digits is None else "There is no digit; click on one.")
            return gr.skip()
        return query

    def draw(self, *sliders: float) -> tuple[str, list, str]:
        """The scene of the sliders, its digits, and the query of one of them."""
        scene = arranged(Sliders(*map(int, sliders)), self.source)
        return self.shown(self.source.render(scene)[0], scene, str(scene.digits[scene.asked].number))

    def shown(self, image: np.ndarray, scene: Scene, query: str) -> tuple[str, list, str]:
        """A scene's picture, in a file of its own as others may draw the same, its digits and its question."""
        path = Path(tempfile.mkdtemp(dir=self.folder)) / "scene.png"
        Image.fromarray(image).save(path)
        return str(path), digits_of(scene), query

    def pick(self, event: gr.SelectData) -> tuple[Any, ...]:
        """A hard case: its picture, digits, query and, if it is here, its network."""
        case, (image, scene) = CASES[event.index], self.cases[event.index]
        network = case.network if case.network in self.networks.names else gr.skip()
        return *self.shown(image, scene, case.query), network

    def pick_photograph(self, event: gr.SelectData) -> tuple[Any, ...]:
        """One of our photographs: a copy where pictures may lie, no scene, its first question, a network for it."""
        photograph, network = self.photographs[event.index], self.knows[event.index]
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / photograph.path.name
        shutil.copyfile(photograph.path, copy)
        return str(copy), None, photograph.questions[0].query, network


def build_page(networks: Networks, folder: Path) -> gr.Blocks:
    """The whole page; ``/ask`` is what scripts may call. ``folder`` as of ``Desk``."""
    desk = Desk(networks, folder)
    with gr.Blocks(title="Progressive attention", analytics_enabled=False, delete_cache=DELETE) as page:
        clicks = gr.HTML(INTRODUCTION, js_on_load=(ASSETS / "clicks.js").read_text())
        of_scene = gr.JSON(visible=False)
        with gr.Row(elem_id="page"):
            picture, query, ask = question_column()
            said, opacity, maps = answer_column()
            first, second, style, sliders, roll = choices_column(desk)
        with gr.Accordion("Hard cases: wrong, unsure, small", open=False, elem_id="hard"):
            captions = [f"{case.query}? {case.network}: {case.said}, {case.kind}" for case in CASES]
            pictures = list(zip((image for image, _ in desk.cases), captions, strict=True))
            cases = gallery(pictures, format="png", elem_id="cases")
        with gr.Accordion("Photographs", open=False, elem_id="open", visible=bool(desk.photographs)):
            pictures = [(Image.open(each.path), each.credit) for each in desk.photographs]
            photographs = gallery(pictures, format="jpeg", elem_id="photographs")
        question, scene = [picture, query, first, second, of_scene], [picture, of_scene, query]

        def then_answer(event: Any) -> None:
            event.success(desk.answer, question, [said, maps], **HIDDEN, **AS_SENT)

        then_answer(page.load(lambda: desk.draw(*SETS[desk.style]), None, scene, **HIDDEN))
        for slider in sliders:
            then_answer(slider.release(desk.draw, sliders, scene, **HIDDEN))
        chosen = style.input(lambda name: list(SETS[name]), style, sliders, **HIDDEN)
        rolled = roll.click(None, sliders[-1], sliders[-1], js=NEXT_SEED)
        for event in (chosen, rolled):
            then_answer(event.success(desk.draw, sliders, scene, **HIDDEN))
        then_answer(clicks.click(desk.click, of_scene, query, **HIDDEN))
        for forget in (picture.upload, picture.clear):
            then_answer(forget(lambda: None, None, of_scene, **HIDDEN))
        for event in (ask.click, query.submit, first.input, second.input):
            event(desk.answer, question, [said, maps], **HIDDEN, **AS_SENT)
        for shown, pick in ((cases, desk.pick), (photographs, desk.pick_photograph)):
            then_answer(shown.select(pick, None, [*scene, first], **HIDDEN))
            shown.select(None, js=SHOW_QUESTION)
        opacity.input(None, opacity, None, js=SET_OPACITY)
        weights, script = gr.Textbox(networks.names[0], visible=False, label="weights"), gr.Button(visible=False)
        asked = [picture, query, weights]
        script.click(desk.ask, asked, gr.JSON(visible=False), api_name="ask", **TOGETHER, **AS_SENT)
    return page


def gallery(pictures: list[tuple[Any, str]], **look: Any) -> gr.Gallery:
    """Pictures to choose from, each with its caption."""
    shown = {"columns": 4, "height": "auto", "object_fit": "contain", "buttons": [], "show_label": False}
    return gr.Gallery(pictures, allow_preview=False, **shown, **look)


def question_column() -> tuple[gr.Image, gr.Textbox, gr.Button]:
    """The picture, and the query below it."""
    with gr.Column(elem_id="question", min_width=0):
        look = {"show_label": False, "height": 360, "elem_id": "picture", "buttons": []}
        picture = gr.Image(label="Picture", format="png", sources=["upload", "clipboard"], **look)
        with gr.Row(elem_id="ask-row"):
            query = gr.Textbox(label="Query", max_lines=1, elem_id="query", scale=3, min_width=0)
            ask = gr.Button("Ask", variant="primary", elem_id="ask", scale=1, min_width=0)
    return picture, query, ask


def answer_column() -> tuple[gr.HTML, gr.Slider, gr.HTML]:
    """The answer, and where it came from."""
    with gr.Column(elem_id="answer", min_width=0):
        said = gr.HTML(elem_id="said")
        opacity = gr.Slider(0, 1, 1, step=0.05, label="Opacity of the attention", elem_id="opacity")
        gr.HTML(legend())
        maps = gr.HTML(elem_id="maps")
    return said, opacity, maps


def choices_column(desk: Desk) -> tuple[gr.Dropdown, gr.Dropdown, gr.Radio, list[gr.Slider], gr.Button]:
    """Networks, and sliders of a scene in the order of ``Sliders``."""
    names = desk.networks.names
    labels = ("Digits", "Clutter (distractors)", "Background (0: black)", "Seed")
    with gr.Column(elem_id="choices", min_width=0):
        with gr.Group():
            first = gr.Dropdown(names, value=names[0], label="Network", elem_id="first")
            second = gr.Dropdown([NOBODY, *names], value=NOBODY, label="Compare with", elem_id="second")
        with gr.Group():
            style = gr.Radio(list(STYLES), value=desk.style, label="Draw a scene like those of", elem_id="style")
            rows = zip(Sliders._fields, labels, Sliders(1), most(desk.source), SETS[desk.style], strict=True)
            sliders = [gr.Slider(low, high, at, step=1, label=label, elem_id=i) for i, label, low, high, at in rows]
            roll = gr.Button("Re-roll", elem_id="roll")
    return first, second, style, sliders, roll
