"""The page's layout and events (Gradio). It keeps no state of its own: all that an event needs comes with it."""

from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData

from progressive_attention.config import STYLES
from progressive_attention.data.scenes import MOST, Scene
from progressive_attention.data.synthetic import SceneSource
from progressive_attention.serve.hard_cases import CASES
from progressive_attention.serve.networks import Networks, as_json
from progressive_attention.serve.panel import legend, notice, panel
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
OPACITY = 0.7
SET_OPACITY = "value => document.documentElement.style.setProperty('--opacity', value)"


class Picture(gr.Image):
    """An image that is handed over as the path of an uploaded file, unopened: what reads it checks it first."""

    is_template = True  # in the browser it is a gr.Image

    def preprocess(self, payload: ImageData | None) -> str | None:  # type: ignore[override]
        """The file's path; an error for a picture that was sent in another way."""
        if payload is None:
            return None
        if not payload.path or (payload.url or "").startswith("data:"):
            raise gr.Error("expected a picture that was uploaded before", print_exception=False)
        return payload.path


class Desk:
    """What the events do."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.source = SceneSource("mbg", "test")  # its digits serve black scenes as well
        assert self.source.photographs is not None
        self.photographs = len(self.source.photographs)
        self.cases = [case.drawn() for case in CASES]

    def ask(self, picture: str | None, query: str, weights: str) -> dict[str, Any]:
        """For scripts: the answer of one network to one question about a picture."""
        try:
            return as_json(self.networks.ask(picture, query, weights))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def answer(self, picture: Any, query: str, first: str, second: str, digits: list[dict[str, Any]] | None) -> str:
        """The panel of one network, or of two; a readable message where there is no answer."""
        names = [first] if second in (NOBODY, first) else [first, second]
        try:
            asked = [self.networks.ask(picture, query, name) for name in names]
        except ValueError as error:
            return notice(str(error))
        return panel(asked, truth_of(digits, asked[0].answer.query))

    def click(self, digits: list[dict[str, Any]] | None, event: gr.SelectData) -> Any:
        """The query of the digit clicked."""
        if digits is None:
            gr.Info("Clicks ask about digits of drawn scenes; about your own picture type a query.")
            return gr.skip()
        query = clicked(digits, *event.index)
        if query is None:
            gr.Info("There is no digit; click on one.")
            return gr.skip()
        return query

    def draw(self, digits: float, clutter: float, background: float, seed: float) -> tuple[np.ndarray, list, str]:
        """The scene of the sliders, its digits, and the query of one of them."""
        try:
            scene = arranged(Sliders(*(int(value) for value in (digits, clutter, background, seed))), self.source)
        except (ValueError, TypeError, OverflowError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        return self.shown(self.source.render(scene)[0], scene)

    def shown(self, image: np.ndarray, scene: Scene) -> tuple[np.ndarray, list, str]:
        """A scene's picture, its digits and its question."""
        return image, digits_of(scene), str(scene.digits[scene.asked].number)

    def pick(self, event: gr.SelectData) -> tuple[Any, ...]:
        """A hard case: its picture, digits, query and, if it is here, its network."""
        case, (image, scene) = CASES[event.index], self.cases[event.index]
        network = case.network if case.network in self.networks.names else gr.skip()
        return image, digits_of(scene), case.query, network

    def first_scene(self) -> tuple[np.ndarray, list, str]:
        """What the page opens with."""
        return self.draw(*self.first_sliders())

    def first_sliders(self) -> tuple[int, int, int, int]:
        """Those of the first network's own set."""
        data = self.networks.predictors[self.networks.names[0]].trained.about.get("data")
        return values_of(data if data in STYLES else STYLES[0])


def values_of(style: str) -> tuple[int, int, int, int]:
    """The sliders of a set: digits, clutter, background, seed."""
    sliders = sliders_of(style)
    return sliders.digits, sliders.clutter, sliders.background, sliders.seed


def build_page(networks: Networks) -> gr.Blocks:
    """The whole page; ``/ask`` is what scripts may call."""
    desk = Desk(networks)
    names = networks.names
    hidden: dict[str, Any] = {"api_visibility": "private", **TOGETHER}
    digits, clutter, background, seed = desk.first_sliders()
    data = networks.predictors[names[0]].trained.about.get("data")
    with gr.Blocks(title="Progressive attention", analytics_enabled=False, delete_cache=(300, 3600)) as page:
        gr.HTML(INTRODUCTION)
        of_scene = gr.JSON(visible=False)
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="question", min_width=0):
                picture = Picture(
                    label="Click a digit, or drop your own picture",
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
                opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the attention", elem_id="opacity")
                gr.HTML(legend())
                result = gr.HTML(elem_id="result")
            with gr.Column(elem_id="choices", min_width=0):
                with gr.Row():
                    first = gr.Dropdown(names, value=names[0], label="Network", elem_id="first", min_width=0)
                    second = gr.Dropdown(
                        [NOBODY, *names], value=NOBODY, label="Compare with", elem_id="second", min_width=0
                    )
                with gr.Group():
                    style = gr.Radio(list(STYLES), value=data, label="Draw a scene like those of", elem_id="style")
                    sliders = [
                        gr.Slider(1, MOST, digits, step=1, label="Digits", elem_id="digits"),
                        gr.Slider(0, MOST_CLUTTER, clutter, step=1, label="Clutter (distractors)", elem_id="clutter"),
                        gr.Slider(
                            *(0, desk.photographs, background),
                            step=1,
                            label="Background (0 black, or a photograph)",
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
            event.success(desk.answer, question, result, **hidden)

        answered(page.load(desk.first_scene, None, scene, **hidden))
        for slider in sliders:
            answered(slider.release(desk.draw, sliders, scene, **hidden))
        answered(
            style.input(values_of, style, sliders, **hidden).success(desk.draw, sliders, scene, **hidden)
        )
        following = f"seed => (seed + 1) % {LARGEST_SEED + 1}"
        answered(roll.click(None, sliders[-1], sliders[-1], js=following).success(desk.draw, sliders, scene, **hidden))
        answered(picture.select(desk.click, of_scene, query, **hidden))
        for forget in (picture.upload, picture.clear):
            answered(forget(lambda: None, None, of_scene, **hidden))
        for event in (ask.click, query.submit, first.input, second.input):
            event(desk.answer, question, result, **hidden)
        answered(gallery.select(desk.pick, None, [*scene, first], **hidden))
        opacity.input(None, opacity, None, js=SET_OPACITY)

        weights = gr.Textbox(names[0], visible=False, label="weights")
        script = gr.Button(visible=False)
        script.click(desk.ask, [picture, query, weights], gr.JSON(visible=False), api_name="ask", **TOGETHER)
    return page
