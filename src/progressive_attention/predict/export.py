"""Take a trained network along: one file for onnxruntime, torch.export or a browser, checked against the network.

Legend: B images with one question each, H x W pixels, H_l x W_l cells at layer l, A attributes.
"""

import io
import json
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from progressive_attention.config import one_of
from progressive_attention.evaluation.absence import detector
from progressive_attention.files import replacing
from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.maps.shown_maps import FIRST
from progressive_attention.network.question_network import Prediction, QuestionNetwork
from progressive_attention.predict import export_web as web_page
from progressive_attention.saved import Trained

CHECKED = range(1, 6)  # sizes of the batches on which a file must answer as its network does
TOLERANCE = 1e-4  # float32 sums in another order elsewhere; seen: 2e-5
Run = Callable[[Tensor, Tensor], dict[str, Tensor]]  # images and query ids -> ``OneQuestion.outputs``


class OneQuestion(nn.Module):
    """A network asked one question an image, ids unchecked: a copy, float32 on the CPU, in evaluation mode."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.trained = trained
        self.network = deepcopy(trained.model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
        self.geometry = geometry(self.network)
        self.detector = detector(trained, self.geometry)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, query: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in [0, 1], query ids (B,) >= 0 -> ``outputs``."""
        rows = self.network.answer(image, self.network.question(query), torch.arange(image.shape[0]), 0)
        return self.outputs(rows.rearranged(lambda each: each[:, None], self.network.config.likelihood))

    def outputs(self, prediction: Prediction) -> dict[str, Tensor]:
        """What a file gives, by name, float32; of a prediction with K = 1.

        ``log_prob`` (B, A); ``attention_1`` ... ``attention_L`` (B, H_l, W_l), gates in [0, 1] and then a map that sums
        to one; of the maps (B, H, W) on the image's pixels the one shown first (``shown_map``), ``attention_flow`` and
        ``attention_accumulated``. Spatial transformers have no layers, and their region as ``attention_accumulated``;
        networks without attention only ``log_prob``. ``presence`` (B,), the higher the surer that the asked object is
        there, where a threshold for it is known (``absence``).
        """
        maps, likelihood = pixel_maps(prediction, self.geometry), self.network.config.likelihood
        named = {"log_prob": prediction.log_prob}
        named |= {f"attention_{layer}": attention for layer, attention in enumerate(prediction.attention, 1)}
        names = dict.fromkeys((FIRST[likelihood][0], "flow", "accumulated"))
        named |= {f"attention_{name}": maps[name] for name in names if name in maps}
        if self.detector:
            named["presence"] = self.detector.score(prediction)
        return {name: tensor[:, 0].float() for name, tensor in named.items()}


def export(trained: Trained, path: Path, format: str = "onnx") -> float:
    """Write a network as ``.onnx``, by torch.export as ``.pt2``, or as a web page; returns ``largest_difference``.

    Inputs ``image`` (B, 3, H, W) float32 in [0, 1] and ``query`` (B,) int64, any B; outputs as ``OneQuestion.outputs``.
    H = W is the network's image size. ``notes`` go along. ``web`` is one ``.html`` file with the .onnx file inside. The
    file is there only once it has answered as the network does. Raises ValueError for another format or ending,
    missing packages, unknown geometry, a network too large for a page, and a file that differs.
    """
    ending, write, opened = FORMATS[one_of("format", format, FORMATS)]
    if path.suffix != ending:
        raise ValueError(f"a file of format {format} must end in {ending}, got {str(path)!r}; rename it")
    asked = OneQuestion(trained)
    with replacing(path) as temporary:
        temporary.write_bytes(write(asked))
        difference = largest_difference(asked, opened(temporary))
        if not difference <= TOLERANCE:  # nor NaN
            raise ValueError(
                f"what {format} makes of this network differs from it by {difference:.1e} of an output's largest "
                f"value, expected at most {TOLERANCE:.0e}; nothing was written; try another --format"
            )
    return difference


def notes(asked: OneQuestion) -> dict[str, str]:
    """What a file says of itself, each value as JSON; "absence" names what ``presence`` is and where "found" begins."""
    config = asked.network.config
    values = {
        "query_names": asked.trained.query_names,
        "attribute_names": asked.trained.attribute_names,
        "image_size": config.image_size,
        "likelihood": config.likelihood,
        "version": version("progressive-attention"),
    }
    if asked.detector:
        values["absence"] = {"score": asked.detector.name, "threshold": asked.detector.threshold}
    return {name: json.dumps(value) for name, value in values.items()}


def random_questions(network: QuestionNetwork, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of noise (count, 3, H, W) in [0, 1) and query ids (count,)."""
    generator, side = torch.Generator().manual_seed(seed), network.config.image_size
    image = torch.rand(count, 3, side, side, generator=generator)
    return image, torch.randint(network.config.num_queries, (count,), generator=generator)


@torch.no_grad()
def graph(asked: OneQuestion) -> torch.export.ExportedProgram:
    """The network as a graph of operations, for any number of images."""
    batch = torch.export.Dim("batch")
    dynamic = {"image": {0: batch}, "query": {0: batch}}
    return torch.export.export(asked, random_questions(asked.network, 2), dynamic_shapes=dynamic)


def onnx_file(asked: OneQuestion) -> bytes:
    """An .onnx file, weights inside; raises ValueError where the packages for it are missing."""
    try:
        import onnx
        import onnxruntime  # noqa: F401 (it opens the file, but now is the time to say that it is missing)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'progressive-attention[export]'") from error
    names = list(asked(*random_questions(asked.network, 1)))
    asking = graph(asked).run_decompositions(
        {
            torch.ops.aten.sigmoid.default: precise_sigmoid,
            torch.ops.aten.log_sigmoid.default: stable_log_sigmoid,
        }
    )
    program = torch.onnx.export(asking, input_names=["image", "query"], output_names=names, dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    part = model.graph
    # What the exporter notes of every operation: half of a small file, and the paths of this machine.
    for noted in (part, *part.node, *part.value_info, *part.input, *part.output, *part.initializer):
        noted.ClearField("metadata_props")
    for tensor in (*part.input, *part.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, notes(asked))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def precise_sigmoid(score: Tensor) -> Tensor:
    """Sigmoid by what onnxruntime computes closely: its own is off by 1e-7, which is much of a closed gate."""
    return 1 / (1 + (-score).exp())


def stable_log_sigmoid(score: Tensor) -> Tensor:
    """Logarithm of the sigmoid, finite for any score; the exporter's own, log(1 / (1 + e^-score)), ends at -88."""
    return score.clamp(max=0) - (1 + (-score.abs()).exp()).log()


def run_onnx(file: Path | bytes) -> Run:
    """An .onnx file, or its bytes, in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor, query: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {"image": image.numpy(), "query": query.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return run


def torch_file(asked: OneQuestion) -> bytes:
    """A .pt2 file of torch.export, the notes among its extra files."""
    program = graph(asked)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    program.example_inputs = None  # noise
    file = io.BytesIO()  # given a path, torch would write its name inside
    torch.export.save(program, file, extra_files=notes(asked))
    return file.getvalue()


def web_file(asked: OneQuestion) -> bytes:
    """An .html file that asks the network in a browser, everything inside."""
    given = asked(*random_questions(asked.network, 1))
    cells = [(*given[f"attention_{layer}"].shape[1:],) for layer in range(1, len(asked.geometry.fields) + 1)]
    about = {name: json.loads(value) for name, value in notes(asked).items()}
    about |= web_page.page_data(asked.geometry, cells, asked.trained.about)
    return web_page.render(about, onnx_file(asked)).encode()


def run_web(path: Path) -> Run:
    """The network inside a page, in onnxruntime."""
    return run_onnx(web_page.unpack(path.read_text(encoding="utf-8"), "model"))


@torch.no_grad()
def largest_difference(asked: OneQuestion, run: Run) -> float:
    """A file's largest difference from the network over random questions, as a share of an output's largest value."""
    shares = [0.0]
    for count in CHECKED:
        image, query = random_questions(asked.network, count, seed=count)
        given = run(image, query)
        for name, tensor in asked.outputs(asked.network(image, query)).items():
            scale = tensor.abs().max().clamp(min=1e-6)  # a map may be zero everywhere
            shares.append(float((given[name] - tensor).abs().max() / scale))
    return float(torch.tensor(shares).max())


FORMATS: dict[str, tuple[str, Callable[[OneQuestion], bytes], Callable[[Path], Run]]] = {  # ending, write, open
    "onnx": (".onnx", onnx_file, run_onnx),
    "torch": (".pt2", torch_file, lambda path: torch.export.load(path).module()),
    "web": (".html", web_file, run_web),
}
