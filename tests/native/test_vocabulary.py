"""Pairs whose vocabularies differ where no text is spelt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import PairError
from cadcpp.gguf.header import read_header, read_token_types
from cadcpp.gguf.vocabulary import check_pair
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats
from tests.support.vocab import N_VOCAB, tokens

GREEDY = SamplingConfig(temperature=0.0)
PLAIN: dict[str, Any] = {}
PADDED: dict[str, Any] = {"n_padding": 30}
OTHER_BEGIN: dict[str, Any] = {"begin": "<|begin_of_text|>"}


def write(verifier: Path, draft: Path | None, prompt: list[int]) -> tuple[list[int], Stats]:
    stats = Stats()
    with Session(verifier, draft, SessionConfig(n_ctx=256, n_threads=1, fallback="none")) as session:
        text = [token for chunk in session.stream(prompt, GREEDY, 40, stats=stats) for token in chunk.tokens]
    return text, stats


def test_token_types_are_those_that_were_written(tiny: Callable[..., Path]) -> None:
    assert read_token_types(read_header(tiny(**PADDED))) == tokens(**PADDED)[1]


@pytest.mark.parametrize(
    ("verifier", "draft"),
    [
        pytest.param(PADDED, PLAIN, id="padded verifier"),
        pytest.param(PLAIN, PADDED, id="padded draft"),
        pytest.param(PLAIN, OTHER_BEGIN, id="another control token"),
    ],
)
def test_padding_and_special_tokens_may_differ(
    tiny: Callable[..., Path], verifier: dict[str, object], draft: dict[str, object]
) -> None:
    # The last token is one that only the padded model has, if the verifier is padded.
    n_verifier = N_VOCAB + int(str(verifier.get("n_padding", 0)))
    prompt = [1, 300, 301, n_verifier - 1]
    alone, _ = write(tiny(**verifier), None, prompt)
    paired, stats = write(tiny(**verifier), tiny(**draft), prompt)
    assert paired == alone
    assert stats.drafted > 0


@pytest.mark.parametrize("other", [{"other_vocab": True}, {"n_vocab": N_VOCAB + 30}])
def test_other_text_is_refused_and_the_way_out_named(tiny: Callable[..., Path], other: dict[str, object]) -> None:
    with pytest.raises(PairError, match="different vocabularies .*token 35[34] is .*make-draft"):
        check_pair(read_header(tiny()), read_header(tiny(**other)))
