"""How well a draft fits its verifier, as far as their files tell."""

from collections.abc import Iterator

from cadcpp.errors import ModelError
from cadcpp.gguf.header import Header
from cadcpp.gguf.summary import ModelSummary, read_summary
from cadcpp.gguf.validate import check_generative
from cadcpp.gguf.vocabulary import check_pair, differences
from cadcpp.native.model import Model
from cadcpp.native.snapshots import keeps_snapshots
from cadcpp.residency.states import verifier_states
from cadcpp.system.memory_limits import available_bytes

_SPECIAL = ("bos", "eos", "eot", "padding")
_LARGE = 0.4  # a draft of this share of its verifier takes more memory than it brings


def check_fit(verifier: Header, draft: Header) -> Iterator[tuple[str, str]]:
    """What was looked at and what was found, finding by finding.

    Raises ModelError or PairError, with a remedy, at the first that makes the pair impossible. Weights are not read
    where the file system can do without.
    """
    ours, theirs = read_summary(verifier), read_summary(draft)
    yield "architecture", _architecture(verifier, draft, ours, theirs)
    check_pair(verifier, draft)
    yield "vocabulary", _vocabulary(verifier, draft)
    yield "special tokens", _special_tokens(verifier, draft)
    yield "chat template", _template(verifier, draft, ours)
    yield "size", _size(ours, theirs)


def _architecture(verifier: Header, draft: Header, ours: ModelSummary, theirs: ModelSummary) -> str:
    for header, card in ((verifier, ours), (draft, theirs)):
        check_generative(header)
        if not card.cacheable:
            raise ModelError(
                f"{header.path} has heads of {card.head_size}; a q8_0 cache holds multiples of 32: take another model"
            )
        Model(header.path, stub=True).close()  # llama.cpp alone knows which architectures it has
    return f"{ours.architecture} and {theirs.architecture}: a pass checks {_checked(verifier)}"


def _checked(verifier: Header) -> str:
    """What a pass can check at once; states are worth less memory where weights are streamed."""
    ram, snapshots = available_bytes(), keeps_snapshots(verifier)
    both = (next(verifier_states(verifier, ram, snapshots=snapshots, streamed=streamed)) for streamed in (False, True))
    kept, streamed = (states.verdict if states else "a tree of drafts" for states in both)
    return kept if kept == streamed else f"{kept}; where weights are streamed, {streamed}"


def _vocabulary(verifier: Header, draft: Header) -> str:
    different = [token for token, *_ in differences(verifier, draft)]
    if not different:
        return f"the same {verifier.n_vocab} tokens"
    return (
        f"all text is the same; {len(different)} special or padding tokens differ ({different[0]} to {different[-1]}), "
        "which costs nothing but guesses of them"
    )


def _special_tokens(verifier: Header, draft: Header) -> str:
    found = []
    for name in _SPECIAL:
        mine, other = (header.metadata.get(f"tokenizer.ggml.{name}_token_id") for header in (verifier, draft))
        if mine != other:
            found.append(f"{name} is {_shown(mine)} against {_shown(other)}")
    return f"{', '.join(found)}: the verifier's count" if found else "the same"


def _shown(token: object) -> str:
    return "none" if token is None else str(token)


def _template(verifier: Header, draft: Header, ours: ModelSummary) -> str:
    if not ours.chat_template:
        return "the verifier has none: it continues text (`cadcpp generate`) and does not chat"
    mine, other = (header.metadata.get("tokenizer.chat_template") for header in (verifier, draft))
    if mine == other:
        return "the same"
    return "differs: the verifier's is used, to which the draft may not be accustomed"


def _size(ours: ModelSummary, theirs: ModelSummary) -> str:
    share = theirs.n_bytes / ours.n_bytes
    advice = "; a smaller draft would leave more memory to the verifier" if share > _LARGE else ""
    return f"the draft has {share:.0%} of the verifier's bytes{advice}"
