"""Good questions, and whether the answer is the Predictor's own."""

import io
import json
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from progressive_attention.data.scenes import SceneSource
from progressive_attention.predict.predictor import Predictor
from progressive_attention.serve.networks import as_json
from progressive_attention.serve.panel import Asked, answers, attention
from progressive_attention.serve.scene import Sliders, arranged, digits_of, truth_of

from .visitor import API, Visitor

NETWORKS = ("mref-pan", "mref-san")
SCENES = 6
ENLARGED = 40  # times: 4000 x 4000 pixels, as many as the server takes
FORMATS = {"png": {}, "jpeg": {"quality": 90}, "webp": {"lossless": True}, "bmp": {}}


class Question(NamedTuple):
    """A picture's file content and scene, a query, a network's name, and what the Predictor says."""

    content: bytes
    name: str
    query: str
    asked: Asked
    digits: list[dict[str, Any]]
    sliders: tuple[int, int, int, int]
    large: bool = False

    @property
    def network(self) -> str:
        return self.asked.network


def questions(folder: Path) -> list[Question]:
    """Every scene in some format, asked for two of its digits, of every network; the last one large.

    Pictures are written to ``folder``.
    """
    predictors = {name: Predictor(name, "cpu") for name in NETWORKS}
    source = SceneSource("mbg", "test")
    found = []
    for seed in range(SCENES):
        sliders = 5, 3 * seed, seed, seed
        scene = arranged(Sliders(*sliders), source)
        kind = list(FORMATS)[seed % len(FORMATS)] if seed < SCENES - 1 else "png"
        path = folder / f"scene-{seed}.{kind}"
        image, large = source.render(scene)[0], seed == SCENES - 1
        path.write_bytes(encoded(image.repeat(ENLARGED, 0).repeat(ENLARGED, 1) if large else image, kind))
        for digit in scene.digits[:2]:
            for name, predictor in predictors.items():
                query = str(digit.number)
                asked = Asked(name, str(predictor.trained.about.get("data", "")), predictor.ask(path, query))
                found.append(Question(path.read_bytes(), path.name, query, asked, digits_of(scene), sliders, large))
    return found


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **FORMATS[kind])
    return buffer.getvalue()


# --- each returns "" or what was wrong --------------------------------------------------------------------------------


def by_script(visitor: Visitor, rng: Random, asked: list[Question], large: bool = False) -> str:
    """Upload, ask and read the event, as docs/demo.md tells."""
    question = rng.choice([one for one in asked if one.large == large])
    picture = visitor.uploaded(question.content, question.name)
    reply = visitor.call({"data": [picture, question.query, question.network]})
    if reply.status != 200 or json.loads(reply.body) != {"event": "complete", "data": [as_json(question.asked)]}:
        return f"{reply.status} {reply.text[:300]}"
    return ""


def by_page(visitor: Visitor, rng: Random, asked: list[Question]) -> str:
    """Drop a picture, press "Ask": the page's event, whose answer is HTML."""
    question = rng.choice([one for one in asked if not one.large])
    picture = visitor.uploaded(question.content, question.name)
    data = [picture, question.query, question.network, "nobody", question.digits]
    reply = visitor.join(uuid.UUID(int=rng.getrandbits(128)).hex, {"fn_index": visitor.events[5], "data": data})
    truth = truth_of(question.digits, question.query)
    expected = [answers([question.asked], truth), attention([question.asked])]
    return "" if reply.status == 200 and output(reply.body) == expected else f"{reply.status} {reply.text[:300]}"


def by_sliders(visitor: Visitor, rng: Random, asked: list[Question]) -> str:
    """Draw the scene of some sliders, and fetch its picture."""
    question = rng.choice(asked)
    session = uuid.UUID(int=rng.getrandbits(128)).hex
    reply = visitor.join(session, {"fn_index": visitor.events[4], "data": list(question.sliders)})
    drawn = output(reply.body) if reply.status == 200 else None
    if not drawn or drawn[1] != question.digits:
        return f"{reply.status} {reply.text[:300]}"
    picture = visitor.send("GET", f"{API}/file={drawn[0]['path']}")
    source = SceneSource("mbg", "test")
    expected = source.render(arranged(Sliders(*question.sliders), source))[0]
    same = picture.status == 200 and np.array_equal(np.asarray(Image.open(io.BytesIO(picture.body))), expected)
    return "" if same else f"another picture: {picture.status} {picture.text[:100]}"


GOOD: dict[str, Callable[[Visitor, Random, list[Question]], str]] = {
    "question of a script": by_script,
    "question of the page": by_page,
    "scene drawn": by_sliders,
    "large picture": partial(by_script, large=True),
}


def output(body: bytes) -> Any:
    """What an event of the page brought, None for an error."""
    done = json.loads(body)
    return done["output"].get("data") if done.get("success") else None
