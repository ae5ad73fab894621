"""Pretrained weights of backbones, from a .safetensors file or by timm's name, and the pixels they have learnt from."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


def pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, by channel, of the pixels in [0, 1] that timm's weights of that name have learnt from."""
    import timm

    config = timm.get_pretrained_cfg(name)
    assert config is not None, name
    return tuple(config.mean), tuple(config.std)


def weights_file(weights: str | Path, name: str) -> Path:
    """The file of pretrained weights for backbone ``name``: a local one, or by timm's name, downloaded once.

    Raises ValueError for pickles, unknown names, weights of another architecture or that have learnt from pixels
    standardised otherwise, and where they can't be downloaded.
    """
    path = Path(weights)
    if path.suffix in PICKLES:
        raise ValueError(
            f"backbone weights {str(weights)!r} may be a pickle, which runs any code when read; where you trust them, "
            "convert them once: safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        )
    if path.suffix == ".safetensors" or path.is_file():
        return path
    return downloaded(str(weights), name)


def downloaded(weights: str, name: str) -> Path:
    """timm's weights of that name for backbone ``name``, fetched once from the Hub; ValueError as ``weights_file``."""
    import timm
    from huggingface_hub import hf_hub_download

    architecture = name.split(".")[0]
    known = ", ".join(timm.list_pretrained(f"{architecture}.*")[:4]) or "none by name"
    if not timm.is_model_pretrained(weights):
        raise ValueError(
            f"backbone weights {weights!r} are neither a file nor a name that timm knows; expected the path of a "
            f".safetensors file, or a name; of {architecture}: {known}"
        )
    # Tensors of another architecture may have the same shapes and mean something else.
    if weights.split(".")[0] != architecture or pixels(weights) != pixels(name):
        raise ValueError(
            f"backbone weights {weights!r} are of another architecture than backbone {name!r}, or have learnt from "
            f"pixels standardised otherwise; give {weights!r} as backbone, too, or weights of {architecture}: {known}"
        )
    try:
        return Path(hf_hub_download(timm.get_pretrained_cfg(weights).hf_hub_id, "model.safetensors"))
    except Exception as error:  # whatever goes wrong between here and there
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"backbone weights {weights!r} can't be downloaded ({reason}); give the path of a local .safetensors file"
        ) from error


@torch.no_grad()
def fill(needed: Mapping[str, Tensor], path: Path) -> None:
    """Copy a .safetensors file's tensors, of any precision, into those of the same name; others there are left out.

    Raises ValueError for a broken file, and where a tensor is not as needed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = sorted(file.keys())
            for name, tensor in needed.items():
                given = file.get_tensor(name) if name in names else None
                if given is None or given.shape != tensor.shape or not given.is_floating_point():
                    got = "none" if given is None else f"{tuple(given.shape)} {given.dtype}"
                    raise ValueError(
                        f"{path} does not fit this backbone: expected {name} {tuple(tensor.shape)} of floats, got "
                        f"{got}; it holds {len(names)} tensors: {', '.join(names[:3])} ...; "
                        "choose the backbone it was made for"
                    )
                tensor.copy_(given)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read as backbone weights ({error}); copy or download it again") from error
