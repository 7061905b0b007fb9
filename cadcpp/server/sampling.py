"""How a request wants its tokens drawn, as arguments of the class's methods."""

from typing import Any

from cadcpp.llama.llama import Llama
from cadcpp.server.fields import Fields

from llama_cpp import LlamaGrammar, LogitsProcessorList, MinTokensLogitsProcessor  # isort: skip

_DEFAULTS = {"temperature": 0.8, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1}  # of llama-cpp-python's server
_MOST_SEEDS = 2**32


def sampling(fields: Fields, llama: Llama, defaults: dict[str, float] | None = None) -> dict[str, Any]:
    """Arguments for completions and chats alike. Raises BadParameter."""
    known = _DEFAULTS | (defaults or {})
    numbers = {
        "temperature": fields.number("temperature", 0),
        "top_p": fields.number("top_p", 0, 1),
        "min_p": fields.number("min_p", 0, 1),
        "repeat_penalty": fields.number("repeat_penalty", 0),
        "typical_p": fields.number("typical_p", 0),
        "presence_penalty": fields.number("presence_penalty", -2, 2),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2),
        "mirostat_mode": fields.integer("mirostat_mode", 0, 2),
        "mirostat_tau": fields.number("mirostat_tau", 0, 10),
        "mirostat_eta": fields.number("mirostat_eta", 0, 1),
        "top_k": fields.integer("top_k", -1, 2**31 - 1),
    }
    found: dict[str, Any] = known | {name: value for name, value in numbers.items() if value is not None}
    found["top_k"] = max(found.get("top_k", 40), 0)
    found["seed"] = _seed(fields)
    found["stop"] = fields.strings("stop")
    found["logit_bias"] = _bias(fields, llama)
    if (n := fields.integer("min_tokens", 0)) is not None and n > 0:
        found["logits_processor"] = LogitsProcessorList([MinTokensLogitsProcessor(n, llama.token_eos())])
    if (grammar := fields.text("grammar")) is not None:
        found["grammar"] = LlamaGrammar.from_string(grammar)
    return found


def seeds(given: dict[str, Any], i: int) -> dict[str, Any]:
    """The arguments for the choice number ``i``: the same seed would draw the same text again."""
    return given if given["seed"] is None else given | {"seed": (given["seed"] + i) % _MOST_SEEDS}


def _seed(fields: Fields) -> int | None:
    seed = fields.integer("seed")
    return None if seed is None or seed < 0 else seed % _MOST_SEEDS


def _bias(fields: Fields, llama: Llama) -> dict[str, float] | None:
    given = fields.get("logit_bias")
    if not given:
        return None
    bias, kind = fields.object("logit_bias"), fields.text("logit_bias_type") or "input_ids"
    if kind not in ("input_ids", "tokens"):
        raise fields.bad("logit_bias_type", f"must be input_ids or tokens, got {kind!r}")
    found: dict[str, float] = {}
    for key in given:
        value = bias.number(key)
        if value is None:
            continue
        if kind == "tokens":
            ids = llama.tokenize(str(key).encode(), add_bos=False, special=True)
        elif str(key).isdecimal() and int(key) < llama.n_vocab():
            ids = [int(key)]
        else:
            raise fields.bad("logit_bias", f"has {key!r}, which is no token: they go from 0 to {llama.n_vocab() - 1}")
        found |= {str(token): float(value) for token in ids}
    return found
