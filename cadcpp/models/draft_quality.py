"""How well a draft guesses what its verifier writes, on text that the verifier wrote."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import DraftedTree
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.errors import ToolError
from cadcpp.gguf.header import read_header
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.context_shape import draft_shape
from cadcpp.residency.states import draft_states
from cadcpp.runtime.session import Session
from cadcpp.system.cpu import choose_threads
from cadcpp.tree.limits import DraftBudget
from cadcpp.tree.prices import MAX_ROWS, Floats
from cadcpp.verify.accept import accept

QUESTIONS = (
    "What could I do at home on a rainy Saturday?",
    "Write a Python function that counts the words of a text file.",
    "Tell a short story about a lighthouse and a whale.",
    "Why do leaves turn red in autumn? Explain it in three sentences.",
)
_N_TOKENS = 48  # of each reply
_N_CTX = 1024
_BATCH = 64
_STRIDE = 8  # tokens of a reply between two trees
_TREE = DraftBudget(max_size=64, max_depth=64)


@dataclass(frozen=True, slots=True)
class Text:
    """What the verifier was asked, and what it replied; token ids."""

    prompt: list[int]
    reply: list[int]

    @property
    def n(self) -> int:
        return len(self.reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """What a draft is worth, measured."""

    agreement: float  # share of the reply's tokens that are its best guess
    tokens: Floats  # [n]: that a pass is expected to bring, with a tree cut to i + 1 rows
    node_s: float  # seconds of evaluating one node
    nodes: float  # evaluated for each row of a tree


def write_texts(
    verifier: Path, draft: Path | None, *, n_ctx: int | None = None, ram: int | None = None
) -> tuple[list[Text], PassCost]:
    """The verifier's own replies to QUESTIONS, greedy, and what its passes cost; ``draft`` helps to write them.

    ``ram`` is in bytes, for everything.
    """
    texts, trained = [], int(read_header(verifier).get("context_length", _N_CTX))
    with Session(verifier, draft, SessionConfig(n_ctx=n_ctx or min(trained, _N_CTX), ram=ram)) as session:
        for question in QUESTIONS:
            prompt = _prompt(session.model, question)
            chunks = session.stream(prompt, SamplingConfig(temperature=0.0), _N_TOKENS)
            texts.append(Text(prompt, [token for chunk in chunks for token in chunk.tokens]))
        return texts, session.engine.policy.verify


def _prompt(model: Model, question: str) -> list[int]:
    if model.chat_template is None:
        return model.tokenize(question)
    return Conversation(Template(model)).ask(question)


def agreement(draft: Path, texts: Sequence[Text], n_threads: int | None = None) -> float:
    """The share of the replies' tokens that are the draft's best guess."""
    with _context(draft, texts, n_threads) as context:
        return _agreement(context, texts)


def measure(draft: Path, texts: Sequence[Text], n_threads: int | None = None) -> Drafting:
    """Let a draft guess the texts: token by token, and with trees.

    By default as many threads compute as are best at the moment; drafts that are compared have the same number.
    """
    with _context(draft, texts, n_threads) as context:
        share = _agreement(context, texts)
        context.clear()
        drafter = ModelDrafter(context)
        found, nodes, seconds = [], 0, 0.0
        for text in texts:
            for at in range(1, text.n - _STRIDE, _STRIDE):
                start = time.perf_counter()
                drafted = drafter.grow([*text.prompt, *text.reply[:at]], _TREE)
                seconds += time.perf_counter() - start
                found.append(_found(drafted, text, at))
                nodes += drafted.n_evaluated
    if not found:
        raise ToolError(f"the verifier's replies are too short to measure {draft} on: it ends them at once")
    tokens = 1 + np.mean(found, axis=0)
    return Drafting(
        agreement=share, tokens=tokens, node_s=seconds / nodes, nodes=nodes / len(found) / (_TREE.max_size - 1)
    )


def _found(drafted: DraftedTree, text: Text, at: int) -> Floats:
    """How many tokens of a reply from ``at`` on a tree of 1, 2, ... rows would have told, [MAX_ROWS]."""
    tree = drafted.tree
    coming = iter([*text.reply[at:], -1])
    path = accept(tree, lambda _row: next(coming)).rows[1:]
    rank = np.empty(len(tree), np.int64)
    rank[np.argsort(-tree.logp, kind="stable")] = np.arange(len(tree))
    return np.asarray(np.cumsum(np.bincount(rank[path], minlength=MAX_ROWS))[:MAX_ROWS], np.float64)


def _agreement(context: Context, texts: Sequence[Text]) -> float:
    hits = sum(int(np.sum(_guesses(context, text) == text.reply)) for text in texts)
    return hits / max(sum(text.n for text in texts), 1)


def _guesses(context: Context, text: Text) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The best guess for every token of a reply, given all before it, [n]."""
    context.clear()
    ids, first, guesses = text.prompt + text.reply[:-1], len(text.prompt) - 1, []
    for start in range(0, len(ids), _BATCH):
        chunk = ids[start : start + _BATCH]
        asked = np.arange(start, start + len(chunk)) >= first
        context.batch.clear()
        context.batch.add(chunk, start, 0, 1, asked)
        context.decode()
        if asked.any():
            guesses.append(np.argmax(context.logits(int(asked.sum())), axis=1))
    return np.concatenate(guesses)


@contextmanager
def _context(path: Path, texts: Sequence[Text], n_threads: int | None) -> Iterator[Context]:
    n_cells = max(len(text.prompt) + text.n for text in texts) + 2 * _TREE.max_size
    header = read_header(path)
    shape = draft_shape(n_cells, _TREE.max_size, n_prompt=_BATCH, states=draft_states(header))
    shape = replace(shape, n_outputs=_BATCH)
    with (
        closing(Model(path, vocabulary=False, repacked=True, header=header)) as model,
        closing(Context(model, shape, n_threads or choose_threads().n)) as context,
    ):
        context.batch.clip_tokens(model.n_vocab - 1)
        yield context
