"""`cadcpp generate`: one prompt, one text."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cadcpp.cli.options import MODEL_OPTIONS, SAMPLING_OPTIONS, always_staged, make_sampling, open_session
from cadcpp.cli.progress import prefill_progress, stall_note
from cadcpp.cli.terminal import answer, note
from cadcpp.errors import ConfigError
from cadcpp.util.text_file import read_text

if TYPE_CHECKING:
    from cadcpp.config import SamplingConfig, SessionConfig
    from cadcpp.residency.memory_plan import Plan
    from cadcpp.runtime.generation_record import GenerationRecord
    from cadcpp.runtime.session import Session


@click.command("generate")
@MODEL_OPTIONS
@click.option("-p", "--prompt", metavar="TEXT", help="The prompt. [default: what standard input has]")
@click.option("-f", "--file", "prompt_file", type=Path, metavar="FILE", help="A text file (UTF-8) with the prompt.")
@SAMPLING_OPTIONS
@click.option(
    "--chat", is_flag=True, help="Make the prompt a question by the model's chat template, so that it is answered."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object at the end: text, token ids, seconds, statistics."
)
def command(
    prompt: str | None,
    prompt_file: Path | None,
    n_predict: int,
    sampling: dict[str, Any],
    chat: bool,
    as_json: bool,
    **model_options: Any,
) -> None:
    """Write what follows a prompt: -p, -f or standard input.

    The text goes to standard output as it is written, everything else to standard error.
    """
    text = _read_prompt(prompt, prompt_file)
    config = make_sampling(**sampling)
    with open_session(n_predict=n_predict, planned=_announce, **model_options) as session:
        recorder = _write(session, _tokenize(session, text, chat), config, n_predict, show=not as_json)
        _finish(recorder.to_dict(), as_json)


def _write(
    session: "Session", ids: list[int], config: "SamplingConfig", n_predict: int, *, show: bool
) -> "GenerationRecord":
    from cadcpp.runtime.generation_record import GenerationRecord

    recorder = GenerationRecord(len(ids))
    with (
        prefill_progress(recorder) as progress,
        stall_note(lambda: session.pager.state().waiting_seconds),
        # Closed before the session: on Ctrl-C or a broken pipe it still has caches to roll back.
        closing(session.stream(ids, config, n_predict, stats=recorder.stats, progress=progress)) as chunks,
    ):
        for chunk in chunks:
            recorder.add(chunk)
            if show:
                answer(chunk.text)
    return recorder


def _announce(_plan: "Plan", config: "SessionConfig") -> None:
    if remark := always_staged(config):
        note(f"drafting: {remark}")


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    if prompt is not None and file is not None:
        raise ConfigError("-p and -f both give a prompt: leave one out")
    text = read_text(file, "prompt file ") if file is not None else _read_stdin() if prompt is None else prompt
    if not text.strip():
        raise ConfigError("the prompt is empty: give -p TEXT, -f FILE, or text on standard input")
    return text


def _read_stdin() -> str:
    if sys.stdin is None:  # closed by the caller
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("the prompt on standard input is not UTF-8 text: convert it") from None


def _tokenize(session: "Session", text: str, chat: bool) -> list[int]:
    if not chat:
        ids = session.model.tokenize(text)
        if ids[:2] == [session.model.bos] * 2:
            token = session.model.piece(ids[0], special=True).decode("utf-8", "replace")
            note(f"cadcpp: the prompt begins with {token}, and the model's file adds one: leave it out of the prompt")
        return ids
    from cadcpp.chat.conversation import Conversation
    from cadcpp.chat.template import Template

    return Conversation(Template(session.model)).ask(text.strip())


def _finish(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        answer(json.dumps(result, ensure_ascii=False) + "\n")
        return
    answer("\n")
    stats = result["stats"]
    note(
        f"[{result['completion_tokens']} tokens, {result['tokens_per_second']:.2f} tokens/s, "
        f"{stats['tokens_per_pass']:.2f} tokens a pass]"
    )
