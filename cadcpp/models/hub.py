"""Fetch model files from a Hugging Face hub; its own client honours HF_ENDPOINT, HF_TOKEN and proxies."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cadcpp.errors import ToolError
from cadcpp.util.extras import require
from cadcpp.util.files import reported, require_space

_SPLIT = re.compile(r"(.*)-00001-of-(\d{5})\.gguf")


def pull(repository: str, file: str, directory: Path) -> list[Path]:
    """Fetch a model's file, or all of a split one's, into ``directory``; the first one's path comes first.

    A download that was ended goes on where it was: until it is done the file has a neighbour that ends in
    .incomplete. Raises ToolError, before anything is fetched if the disk is too full or there is no such file.
    """
    hub = _client()
    with _explained(f"{file} of {repository}"):
        files = [_File(hub, repository, name, directory) for name in _parts(file)]
    require_space(directory, sum(one.missing_bytes for one in files))
    for one in files:
        one.fetch()
    return [one.path for one in files]


class _File:
    """One file on the hub, and where it goes."""

    def __init__(self, hub: Any, repository: str, name: str, directory: Path) -> None:
        self._hub, self._name = hub, name
        self._url = hub.hf_hub_url(repository, name)
        facts = hub.get_hf_file_metadata(self._url)
        self._n_bytes = facts.size or 0
        self.path = directory / Path(name).name
        # The hub's own mark of the content is in the name, so that no other file's rest is put behind this one's start.
        self._part = self.path.with_name(f"{self.path.name}.{str(facts.etag)[:8]}.incomplete")

    @property
    def missing_bytes(self) -> int:
        if self.path.is_file() and self.path.stat().st_size == self._n_bytes:
            return 0
        return self._n_bytes - (self._part.stat().st_size if self._part.is_file() else 0)

    def fetch(self) -> None:
        if self.path.is_file() and self.missing_bytes == 0:
            return
        with reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("ab") as file, _explained(self._name):
                self._hub.file_download.http_get(
                    self._url,
                    file,
                    resume_size=file.tell(),
                    headers=self._hub.utils.build_hf_headers(),
                    expected_size=self._n_bytes,
                )
            os.replace(self._part, self.path)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of whatever HTTP library the client is built on: that changes with its version
        if getattr(error, "errno", None):  # the disk's
            raise
        raise ToolError(f"cannot fetch {what}: {_reason(error)}") from error


def _client() -> Any:
    require("pull", "fetching", "huggingface_hub")
    import huggingface_hub
    import huggingface_hub.file_download
    import huggingface_hub.utils

    return huggingface_hub


def _parts(file: str) -> list[str]:
    match = _SPLIT.fullmatch(file)
    return [file] if match is None else [f"{match[1]}-{i:05}-of-{match[2]}.gguf" for i in range(1, int(match[2]) + 1)]


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if "NotFound" in name:
        return "the hub has no such repository or file; check both names"
    if "Gated" in name:
        return "its licence must be accepted on the hub first; then set HF_TOKEN"
    line = next((line for line in str(error).splitlines() if line.strip()), name)
    if isinstance(error, ValueError):
        return f"{line} Check both names"
    return f"{line}; check the network and run again, it goes on where it was"
