"""The page's layout and events (Gradio). It keeps no state of its own: all that an event needs comes with it."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from progressive_attention.config import STYLES
from progressive_attention.data.scenes import MOST, Scene, SceneSource
from progressive_attention.files import replacing
from progressive_attention.serve.hard_cases import CASES
from progressive_attention.serve.networks import Networks, as_json, uploaded
from progressive_attention.serve.panel import answers, attention, legend, notice, png
from progressive_attention.serve.scene import (
    LARGEST_SEED,
    MOST_CLUTTER,
    Sliders,
    arranged,
    clicked,
    digits_of,
    sliders_of,
    truth_of,
)
from progressive_attention.serve.style import INTRODUCTION

NOBODY = "nobody"
TOGETHER = {"concurrency_id": "ask", "concurrency_limit": 2}  # answers computed at a time, of the page and of scripts
OPACITY = 1
# Where the picture was clicked, in its own pixels. Gradio's select event can't tell that of an enlarged picture.
TELL_CLICKS = """
document.addEventListener('click', event => {
  const image = event.target.closest('#picture img');
  if (!image) return;
  const box = image.getBoundingClientRect();
  const zoom = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const x = (event.clientX - box.left - (box.width - image.naturalWidth * zoom) / 2) / zoom;
  const y = (event.clientY - box.top - (box.height - image.naturalHeight * zoom) / 2) / zoom;
  trigger('click', {x, y});
});
"""
SHOW_QUESTION = "() => document.querySelector('#question').scrollIntoView({behavior: 'smooth'})"
SET_OPACITY = "value => document.documentElement.style.setProperty('--opacity', value)"


class Desk:
    """What the events do; ``folder`` is where Gradio keeps what was uploaded, or drawn here."""

    def __init__(self, networks: Networks, folder: Path) -> None:
        self.networks, self.folder = networks, folder
        self.source = SceneSource("mbg", "test")  # its digits serve black scenes as well
        assert self.source.photographs is not None
        self.photographs = len(self.source.photographs)
        self.cases = [case.drawn() for case in CASES]

    def ask(self, picture: Any, query: Any, weights: Any) -> dict[str, Any]:
        """For scripts: the answer of one network to one question about a picture."""
        try:
            return as_json(self.networks.ask(uploaded(picture, self.folder), query, weights))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def answer(self, picture: Any, query: str, first: str, second: str, digits: list[dict[str, Any]] | None) -> Any:
        """Answers and attention of one network, or of two; a readable message where there is no answer."""
        names = [first] if second in (NOBODY, first) else [first, second]
        try:
            asked = [self.networks.ask(uploaded(picture, self.folder), query, name) for name in names]
        except ValueError as error:
            return notice(str(error)), ""
        return answers(asked, truth_of(digits, asked[0].answer.query)), attention(asked)

    def click(self, digits: list[dict[str, Any]] | None, event: gr.EventData) -> Any:
        """The query of the digit clicked."""
        if digits is None:
            gr.Info("Clicks ask about digits of drawn scenes; about your own picture type a query.")
            return gr.skip()
        query = clicked(digits, event.x, event.y)
        if query is None:
            gr.Info("There is no digit; click on one.")
            return gr.skip()
        return query

    def draw(self, digits: int, clutter: int, background: int, seed: int) -> tuple[str, list, str]:
        """The scene of the sliders, its digits, and the query of one of them."""
        try:
            scene = arranged(Sliders(digits, clutter, background, seed), self.source)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return self.shown(self.source.render(scene)[0], scene)

    def shown(self, image: np.ndarray, scene: Scene) -> tuple[str, list, str]:
        """A scene's picture, its digits and its question."""
        return self.kept(image), digits_of(scene), str(scene.digits[scene.asked].number)

    def kept(self, image: np.ndarray) -> str:
        """The path of a picture in the folder, whole at any moment: Gradio writes over what another visitor reads."""
        content = png(image)
        path = self.folder / sha256(content).hexdigest() / "scene.png"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return str(path)

    def pick(self, event: gr.SelectData) -> tuple[Any, ...]:
        """A hard case: its picture, digits, query and, if it is here, its network."""
        case, (image, scene) = CASES[event.index], self.cases[event.index]
        network = case.network if case.network in self.networks.names else gr.skip()
        return self.kept(image), digits_of(scene), case.query, network

    def first_scene(self) -> tuple[str, list, str]:
        """What the page opens with."""
        return self.draw(*values_of(self.style))

    @property
    def style(self) -> str:
        """The set that the first network learnt from, MREF if it was another one."""
        data = self.networks.predictors[self.networks.names[0]].trained.about.get("data")
        return data if data in STYLES else STYLES[0]


def values_of(style: str) -> tuple[int, int, int, int]:
    """The sliders of a set: digits, clutter, background, seed."""
    sliders = sliders_of(style)
    return sliders.digits, sliders.clutter, sliders.background, sliders.seed


def build_page(networks: Networks, folder: Path) -> gr.Blocks:
    """The whole page; ``/ask`` is what scripts may call. ``folder`` as of ``Desk``."""
    desk = Desk(networks, folder)
    names = networks.names
    hidden: dict[str, Any] = {"api_visibility": "private", **TOGETHER}
    as_sent: dict[str, Any] = {
        "preprocess": False
    }  # Gradio would open the picture, wherever it lies and whatever it is
    digits, clutter, background, seed = values_of(desk.style)
    with gr.Blocks(title="Progressive attention", analytics_enabled=False, delete_cache=(300, 3600)) as page:
        introduction = gr.HTML(INTRODUCTION, js_on_load=TELL_CLICKS)
        of_scene = gr.JSON(visible=False)
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="question", min_width=0):
                picture = gr.Image(
                    label="Picture",
                    show_label=False,
                    format="png",
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=360,
                    elem_id="picture",
                )
                with gr.Row(elem_id="ask-row"):
                    query = gr.Textbox(label="Query", max_lines=1, elem_id="query", scale=3, min_width=0)
                    ask = gr.Button("Ask", variant="primary", elem_id="ask", scale=1, min_width=0)
            with gr.Column(elem_id="answer", min_width=0):
                said = gr.HTML(elem_id="said")
                opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the attention", elem_id="opacity")
                gr.HTML(legend())
                maps = gr.HTML(elem_id="maps")
            with gr.Column(elem_id="choices", min_width=0):
                with gr.Group():
                    first = gr.Dropdown(names, value=names[0], label="Network", elem_id="first")
                    others = [NOBODY, *names]
                    second = gr.Dropdown(others, value=NOBODY, label="Compare with", elem_id="second")
                with gr.Group():
                    style = gr.Radio(
                        list(STYLES), value=desk.style, label="Draw a scene like those of", elem_id="style"
                    )
                    sliders = [
                        gr.Slider(1, MOST, digits, step=1, label="Digits", elem_id="digits"),
                        gr.Slider(0, MOST_CLUTTER, clutter, step=1, label="Clutter (distractors)", elem_id="clutter"),
                        gr.Slider(
                            *(0, desk.photographs, background),
                            step=1,
                            label="Background (0: black)",
                            elem_id="background",
                        ),
                        gr.Slider(0, LARGEST_SEED, seed, step=1, label="Seed", elem_id="seed"),
                    ]
                    roll = gr.Button("Re-roll", elem_id="roll")
        with gr.Accordion("Hard cases: wrong, unsure, small", open=False, elem_id="hard"):
            gallery = gr.Gallery(
                [(image, case.caption()) for case, (image, _) in zip(CASES, desk.cases, strict=True)],
                format="png",
                columns=4,
                height="auto",
                allow_preview=False,
                show_label=False,
                buttons=[],
                object_fit="contain",
                elem_id="cases",
            )

        question = [picture, query, first, second, of_scene]
        scene = [picture, of_scene, query]

        def answered(event: Any) -> None:
            event.success(desk.answer, question, [said, maps], **hidden, **as_sent)

        answered(page.load(desk.first_scene, None, scene, **hidden))
        for slider in sliders:
            answered(slider.release(desk.draw, sliders, scene, **hidden))
        answered(style.input(values_of, style, sliders, **hidden).success(desk.draw, sliders, scene, **hidden))
        following = f"seed => (seed + 1) % {LARGEST_SEED + 1}"
        answered(roll.click(None, sliders[-1], sliders[-1], js=following).success(desk.draw, sliders, scene, **hidden))
        answered(introduction.click(desk.click, of_scene, query, **hidden))
        for forget in (picture.upload, picture.clear):
            answered(forget(lambda: None, None, of_scene, **hidden))
        for event in (ask.click, query.submit, first.input, second.input):
            event(desk.answer, question, [said, maps], **hidden, **as_sent)
        answered(gallery.select(desk.pick, None, [*scene, first], **hidden))
        gallery.select(None, js=SHOW_QUESTION)
        opacity.input(None, opacity, None, js=SET_OPACITY)

        weights = gr.Textbox(names[0], visible=False, label="weights")
        script = gr.Button(visible=False)
        script.click(desk.ask, [picture, query, weights], gr.JSON(visible=False), api_name="ask", **TOGETHER, **as_sent)
    return page
