"""lm-eval, as people use it, on `cadcpp serve`: its scores are those of one plain pass over each text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")
lm_eval = pytest.importorskip("lm_eval", reason="pip install lm_eval")

from cadcpp import Llama  # noqa: E402
from cadcpp.models.demo import DemoPair  # noqa: E402
from tests.support.server import Server, serving  # noqa: E402

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}]
"""
CHOICES = ["Paris", "Rome", "Berlin", "Tokyo"]
COUNTRIES = {"France": 0, "Italy": 1, "Germany": 2, "Japan": 3}


@pytest.fixture(scope="module")
def server(target: Path, demo: DemoPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(
        log, "-m", target, "-d", demo.draft, "--ctx", 512, "--threads", 1, "--alias", "smol", "--logprobs"
    ) as one:
        yield one


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    docs = [{"country": name, "answer": answer, "choices": CHOICES} for name, answer in COUNTRIES.items()]
    data = folder / "capitals.jsonl"
    data.write_text("\n".join(map(json.dumps, docs)), "utf-8")
    (folder / "capitals.yaml").write_text(TASK.format(data=data), "utf-8")
    return folder


def scores(llama: Llama, text: str, more: str) -> float:
    """The log probability of ``more`` behind ``text``, in one pass."""
    ids, n = llama.tokenize((text + more).encode()), len(llama.tokenize(text.encode()))
    llama.reset()
    llama.eval(ids)
    logits = llama.scores[: len(ids)].astype(float)
    logprobs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    return float(sum(logprobs[i - 1, ids[i]] for i in range(n, len(ids))))


def arguments(name: str, server: Server) -> dict[str, str]:
    if name == "gguf":
        return {"base_url": server.url.removesuffix("/v1")}
    return {"base_url": f"{server.url}/completions", "model": "smol", "tokenizer_backend": "remote"}


def test_scores_are_those_of_one_pass(
    server: Server, target: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found: Any = lm_eval.simple_evaluate(
        "gguf", arguments("gguf", server), tasks=["capitals"], task_manager=TaskManager(include_path=str(task))
    )
    assert found["results"]["capitals"]["acc,none"] > 0.7
    with Llama(str(target), n_ctx=512, n_threads=1, speculative="off", logits_all=True, verbose=False) as plain:
        for sample in found["samples"]["capitals"]:
            text = (
                sample["arguments"][0][0]
                if isinstance(sample["arguments"], list)
                else sample["arguments"]["gen_args_0"]["arg_0"]
            )
            mine = [float(response[0][0]) for response in sample["resps"]]
            assert mine == pytest.approx([scores(plain, text, f" {choice}") for choice in CHOICES], abs=1e-3)
