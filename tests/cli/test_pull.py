"""`cadcpp models list` and `pull`, against a hub on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.models.catalog import pairs
from tests.support.command import run
from tests.support.hub import REPOSITORY, Hub, serve

DATA = bytes(range(256)) * 100_000  # of more than one piece of a transfer
SPLIT = {f"big-{i:05}-of-00002.gguf": bytes([i]) * 1000 for i in (1, 2)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve({"small.gguf": DATA, **SPLIT}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield hub


def test_a_file_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    for _ in range(2):
        done = run("models", "pull", REPOSITORY, "small.gguf", "--dir", tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'small.gguf'}\n"), done.stderr
    assert (tmp_path / "small.gguf").read_bytes() == DATA
    assert len(hub.ranges) == 1


def test_a_download_goes_on_where_it_was_cut(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = True
    done = run("models", "pull", REPOSITORY, "small.gguf", "--dir", tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("cadcpp: cannot fetch small.gguf")
    hub.breaks, before = False, len(hub.ranges)
    done = run("models", "pull", REPOSITORY, "small.gguf", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small.gguf").read_bytes() == DATA
    assert len(hub.ranges) == before + 1 and int(str(hub.ranges[-1]).removeprefix("bytes=").rstrip("-")) > 0
    assert [path.name for path in tmp_path.glob("small*")] == ["small.gguf"]


def test_all_parts_of_a_split_model_are_fetched(hub: Hub, tmp_path: Path) -> None:
    done = run("models", "pull", REPOSITORY, "big-00001-of-00002.gguf", "--dir", tmp_path)
    assert done.stdout == f"{tmp_path / 'big-00001-of-00002.gguf'}\n", done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.glob("big-*")} == SPLIT


def test_a_full_disk_is_noticed_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.claims["small.gguf"] = 10**15
    done = run("models", "pull", REPOSITORY, "small.gguf", "--dir", tmp_path)
    assert done.returncode == 1 and "not enough disk" in done.stderr and "1000 TB needed" in done.stderr
    assert hub.ranges == []


def test_a_file_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    done = run("models", "pull", REPOSITORY, "other.gguf", "--dir", tmp_path)
    assert done.returncode == 1 and "no such repository or file" in done.stderr.splitlines()[-1]


def test_a_name_that_no_repository_has(hub: Hub, tmp_path: Path) -> None:
    done = run("models", "pull", "a/b/c", "small.gguf", "--dir", tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("Check both names")


def test_an_unknown_name_points_to_the_list() -> None:
    result = CliRunner().invoke(main, ["models", "pull", "qwen9"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "'qwen9'" in result.stderr and "cadcpp models list" in result.stderr


def test_the_list_shows_pairs_and_what_is_on_disk(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    pair = pairs()["smollm2-1.7b"]
    for model in filter(None, (pair.verifier, pair.draft)):
        (tmp_path / model.file).touch()
    lines = CliRunner().invoke(main, ["models", "list", "--dir", str(tmp_path)]).stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(pairs())]] == list(pairs())
    assert [line.split()[0] for line in lines if line.endswith("on disk")] == ["smollm2-1.7b"]
    assert any(line.split() == ["4", "B", "mine.gguf"] for line in lines)


def test_the_catalogue_makes_sense() -> None:
    assert len(pairs()) >= 10
    for name, pair in pairs().items():
        least, most = (limit * 1e9 for limit in pair.ram_gb)
        n_draft = pair.draft.n_bytes if pair.draft else 0
        assert n_draft < pair.verifier.n_bytes and n_draft < least < most, name
        assert most < pair.verifier.n_bytes + n_draft + 3e9, name  # beyond, nothing has to be streamed
        assert bool(pair.verifier.bytes) != bool(pair.verifier.about_gb) and pair.verifier.licence, name
