"""How a request wants its tokens drawn, as arguments of the class's methods."""

from collections.abc import Iterator
from typing import Any

from cadcpp.llama.llama import Llama
from cadcpp.server.fields import Fields

from llama_cpp import LlamaGrammar, LogitsProcessorList, MinTokensLogitsProcessor  # isort: skip

_DEFAULTS = {"temperature": 0.8, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1}  # of llama-cpp-python's server
_MOST_SEEDS = 2**32
_NO_PENALTIES = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_NEVER = 1e9  # more than logits differ by
_ALIASES = {"mirostat": "mirostat_mode", "repetition_penalty": "repeat_penalty"}  # llama-server's, ollama's and vLLM's
_UNSERVED: dict[str, tuple[Any, ...]] = {  # what would change the text, with the values that change nothing
    **dict.fromkeys(("dry_multiplier", "xtc_probability", "dynatemp_range", "smoothing_factor", "top_a"), (0,)),
    **dict.fromkeys(("tfs_z", "length_penalty"), (1,)),
    **dict.fromkeys(("top_n_sigma", "n_indent", "t_max_predict_ms", "truncate_prompt_tokens"), (0, -1)),
    **dict.fromkeys(("use_beam_search", "include_stop_str_in_output", "post_sampling_probs", "grammar_lazy"), (False,)),
    **dict.fromkeys(("penalize_nl", "penalize_newline", "skip_special_tokens"), (True, False)),
    **dict.fromkeys(("stop_token_ids", "bad_words", "allowed_token_ids", "lora", "samplers", "response_fields"), ([],)),
    **dict.fromkeys(("grammar_triggers", "prompt_logprobs", "guided_json", "guided_regex", "guided_choice"), ()),
    **dict.fromkeys(("guided_grammar", "structured_outputs"), ()),
}


def sampling(fields: Fields, llama: Llama, defaults: dict[str, float] | None = None) -> dict[str, Any]:
    """Arguments for completions and chats alike. Raises BadParameter."""
    known = _DEFAULTS | (defaults or {})
    fields = fields.renamed(_ALIASES)
    _check_served(fields)
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
    found |= _penalties(fields, llama, found)
    found["top_k"] = max(found.get("top_k", 40), 0)
    found["seed"] = _seed(fields)
    found["stop"] = fields.strings("stop")
    found["logit_bias"] = _bias(fields, llama)
    n = llama.n_ctx() if fields.flag("ignore_eos") else fields.integer("min_tokens", 0) or 0
    if n > 0:
        found["logits_processor"] = LogitsProcessorList([MinTokensLogitsProcessor(n, llama.token_eos())])
    if (grammar := fields.text("grammar")) is not None:
        found["grammar"] = LlamaGrammar.from_string(grammar)
    return found


def _check_served(fields: Fields) -> None:
    """Raises BadParameter for what would be left out without a word."""
    for name, neutral in _UNSERVED.items():
        if name in fields and fields.get(name) not in neutral:
            raise fields.bad(name, "is not served here")


def _penalties(fields: Fields, llama: Llama, found: dict[str, Any]) -> dict[str, float]:
    """Penalties that are switched off by looking at no token; how many are looked at is the model's to say."""
    own, last_n = llama.last_n_tokens_size, fields.integer("repeat_last_n", -1)
    if last_n == 0:
        return _NO_PENALTIES
    if last_n not in (None, own) and any(found.get(name, none) != none for name, none in _NO_PENALTIES.items()):
        raise fields.bad("repeat_last_n", f"is {own} here, got {last_n}")
    return {}


def seeds(given: dict[str, Any], i: int) -> dict[str, Any]:
    """The arguments for the choice number ``i``: the same seed would draw the same text again."""
    return given if given["seed"] is None else given | {"seed": (given["seed"] + i) % _MOST_SEEDS}


def _seed(fields: Fields) -> int | None:
    seed = fields.integer("seed")
    return None if seed is None or seed < 0 else seed % _MOST_SEEDS


def _bias(fields: Fields, llama: Llama) -> dict[str, float] | None:
    given, kind = fields.get("logit_bias"), fields.text("logit_bias_type") or "input_ids"
    if kind not in ("input_ids", "tokens"):
        raise fields.bad("logit_bias_type", f"must be input_ids or tokens, got {kind!r}")
    if not given:
        return None
    found: dict[str, float] = {}
    for key, value, is_text in _pairs(fields, kind == "tokens"):
        if is_text:
            ids = llama.tokenize(str(key).encode(), add_bos=False, special=True)
        elif str(key).isdecimal() and int(key) < llama.n_vocab():
            ids = [int(key)]
        else:
            raise fields.bad("logit_bias", f"has {key!r}, which is no token: they go from 0 to {llama.n_vocab() - 1}")
        found |= {str(token): float(value) for token in ids}
    return found


def _pairs(fields: Fields, by_text: bool) -> Iterator[tuple[Any, float, bool]]:
    """What is biased, how much, and whether it is a text: of a map, or of llama-server's list of pairs."""
    given = fields.get("logit_bias")
    if not isinstance(given, list):
        bias = fields.object("logit_bias")
        yield from ((key, value, by_text) for key in given if (value := bias.number(key)) is not None)
        return
    for i, pair in enumerate(given):
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (int, str):
            raise fields.bad(f"logit_bias[{i}]", "must be a pair of a token, or a text, and a number")
        bias = Fields({"bias": -_NEVER if pair[1] is False else pair[1]}, f"logit_bias[{i}]")
        yield pair[0], bias.number("bias") or 0.0, isinstance(pair[0], str)
