"""Pretrained weights of backbones, from a .safetensors file or by timm's name, and the pixels they have learnt from."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from progressive_attention.saved.network_folder import first_line

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


def pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, by channel, of the pixels in [0, 1] that timm's weights of that name have learnt from."""
    import timm

    told = timm.get_pretrained_cfg(name)
    assert told is not None, name
    return tuple(told.mean), tuple(told.std)


def weights_file(weights: str | Path, name: str) -> Path:
    """The file of pretrained weights for backbone ``name``: a local one, or by timm's name, downloaded once.

    Raises ValueError for pickles, unknown names, weights of another architecture or that have learnt from pixels
    standardised otherwise, and where they can't be downloaded.
    """
    import timm
    from huggingface_hub import hf_hub_download

    path, known = Path(weights), str(weights)
    if path.suffix in PICKLES:
        raise ValueError(
            f"backbone weights {known!r} may be a pickle, which runs any code when read; where you trust them, convert "
            "them once: safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        )
    if path.suffix == ".safetensors" or path.is_file():
        return path
    architecture = name.split(".")[0]
    own = ", ".join(timm.list_pretrained(f"{architecture}.*")[:4])
    if not timm.is_model_pretrained(known):
        raise ValueError(
            f"backbone weights {known!r} are neither a file nor a name that timm knows; expected the path of a "
            f".safetensors file, or a name such as {own or 'vgg16.tv_in1k'}"
        )
    other = known.split(".")[0]
    if other != architecture:  # whose tensors may have the same shapes and mean something else
        raise ValueError(
            f"backbone weights {known!r} are of {other}, not of backbone {name!r}; give {other!r} as the backbone, or "
            f"weights of {architecture}: {own or 'timm has none by name'}"
        )
    if pixels(known) != pixels(name):
        raise ValueError(
            f"backbone weights {known!r} have learnt from pixels standardised otherwise than backbone {name!r}; "
            f"give {known!r} as the backbone too"
        )
    told = timm.get_pretrained_cfg(known)
    if told is None or not told.hf_hub_id:
        raise ValueError(
            f"timm has backbone weights {known!r} not on the Hub as .safetensors; give the path of a local file, or "
            "take another backbone, such as resnet18 with resnet18.a1_in1k"
        )
    try:
        return Path(hf_hub_download(told.hf_hub_id, "model.safetensors"))
    except Exception as error:  # whatever goes wrong between here and there
        raise ValueError(
            f"backbone weights {known!r} can't be downloaded ({first_line(error)}); "
            "give the path of a local .safetensors file instead"
        ) from error


@torch.no_grad()
def fill(needed: Mapping[str, Tensor], path: Path) -> None:
    """Copy a .safetensors file's tensors into those of the same name, whatever their precision.

    Others there, as of a head, are left out. Raises ValueError for a broken file, and where a tensor is not as needed.
    """
    try:
        with safe_open(path, "pt") as file:
            held = sorted(file.keys())
            for name, tensor in needed.items():
                given = file.get_tensor(name) if name in held else None
                if given is None or given.shape != tensor.shape or not given.is_floating_point():
                    got = "none" if given is None else f"{tuple(given.shape)} {given.dtype}"
                    raise ValueError(
                        f"{path} does not fit this backbone: expected {name} {tuple(tensor.shape)} of floats, got "
                        f"{got}; it holds {len(held)} tensors: {', '.join(held[:3])} ...; "
                        "choose the backbone it was made for"
                    )
                tensor.copy_(given)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read as backbone weights ({error}); copy or download it again") from error
