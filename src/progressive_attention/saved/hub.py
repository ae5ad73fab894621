"""Networks from and to folders and the Hugging Face Hub, by the Hub's usual three verbs.

A folder holds what ``pan train`` writes, and a model card: ``pan evaluate --weights FOLDER`` takes what is saved or
downloaded here, and what was trained there goes to the Hub from here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from torch import nn

from progressive_attention.config import ModelConfig
from progressive_attention.files import digest_of, write_text
from progressive_attention.network.backbone import build_backbone
from progressive_attention.saved.model_card import model_card
from progressive_attention.saved.network_folder import (
    describe,
    filled,
    find,
    first_line,
    hugging_face,
    read_config,
    save,
)

OF_WEIGHTS = ("test", "best", "epoch", "absence", "seconds", "command")  # what config.json tells of these very weights


class HubMixin(nn.Module):
    """``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, for networks of the kind ``network``.

    ``about`` is the content of config.json with which a network came or went, None until then. These do what
    huggingface_hub's PyTorchModelHubMixin does, with the files of a run's folder instead of a second format, and need
    that package only for the Hub itself.
    """

    network: ClassVar[str]  # ModelConfig.network
    config: ModelConfig
    about: dict[str, Any] | None = None
    weights_told: str = ""  # a digest of those that ``about`` tells of

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """A trained network in evaluation mode: by a shipped name, a folder, or a repository ``owner/name`` of the Hub.

        The keywords are those of ``huggingface_hub.snapshot_download``. Raises ValueError where there is no network, it
        is broken, or of another kind.
        """
        download = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = find(name_or_folder, **download)
        config, about = read_config(folder)
        if config.network != cls.network:
            raise ValueError(
                f"{str(name_or_folder)!r} holds a network of kind {config.network!r}, and {cls.__name__} is of kind "
                f"{cls.network!r}; progressive_attention.saved.weights.load takes the folder of any kind"
            )
        model = filled(lambda: cls(config, build_backbone(config.backbone)), folder)
        model.about, model.weights_told = about, model.digest()
        return model

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        query_names: Sequence[str] | None = None,
        attribute_names: Sequence[str] | None = None,
        results: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        """Write README.md (``model_card``), weights.safetensors and config.json.

        The names are needed once, of a network built anew. ``results`` is what ``evaluate`` gives, for the card. What a
        network came with is told again, but after further training nothing of what was measured of other weights.
        ``name`` is the card's title (default: the folder's). Raises ValueError for names that are missing or don't fit.
        """
        about = self.described(query_names, attribute_names, results)
        folder = Path(folder)
        parameters = sum(parameter.numel() for parameter in self.parameters())
        write_text(folder / "README.md", model_card(about, name or folder.resolve().name, parameters))
        save(folder, self.state_dict(), about)
        _, self.about = read_config(folder)  # JSON has lists where a config has tuples
        self.weights_told = self.digest()

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a network of progressive_attention",
        **saved: Any,
    ) -> str:
        """Upload what ``save_pretrained`` writes (``saved`` are its keywords) to ``owner/name``; the address of that.

        The repository is made if it is not there, ``private`` if so asked. Raises ValueError where that can't be done.
        """
        hub = hugging_face()
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **{"name": repository, **saved})
            try:
                api = hub.HfApi(token=token)
                address = api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(
                    repo_id=repository, folder_path=folder, revision=revision, commit_message=commit_message
                )
            except Exception as error:  # whatever goes wrong between here and there
                raise ValueError(
                    f"{repository!r} can't be uploaded ({first_line(error)}); log in (`hf auth login`) or give a token "
                    "that may write there"
                ) from error
        return str(address)

    def digest(self) -> str:
        """Of the weights as they are now."""
        return digest_of({name: tensor.cpu() for name, tensor in self.state_dict().items()}, {})

    def described(
        self,
        query_names: Sequence[str] | None,
        attribute_names: Sequence[str] | None,
        results: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """The content of config.json, as ``save_pretrained`` tells."""
        known = self.about or {}
        if self.weights_told != self.digest():
            known = {key: value for key, value in known.items() if key not in OF_WEIGHTS}
        names = [
            tuple(known.get(f"{kind}_names", ()) if given is None else given)
            for kind, given in (("query", query_names), ("attribute", attribute_names))
        ]
        sizes = self.config.num_queries, self.config.num_attributes
        if tuple(map(len, names)) != sizes:
            raise ValueError(
                f"this network has {sizes[0]} queries and {sizes[1]} attributes, got {len(names[0])} and "
                f"{len(names[1])} names; give query_names and attribute_names, in the order of their ids"
            )
        about = {**known, **describe(self.config, names[0], names[1])}
        if results is not None:
            about["test"] = {key: value for key, value in results.items() if key != "precision_recall"}  # long curves
        return about
