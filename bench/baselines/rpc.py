"""Baseline: plain llama.cpp whose last layers are on a worker (its own RPC backend), one token per decode, greedy.

As `bench.baselines.plain --same-settings`, so that the texts are the same.
"""

import json
import os
from dataclasses import replace

os.environ["GGML_CPU_TILED_MM"] = "0"

from bench.baselines.plain import make_context, options_parser, tokenize, write  # noqa: E402
from bench.baselines.token_times import TokenTimes  # noqa: E402
from bench.program import run_program
from cadcpp.link.address import Address  # noqa: E402
from cadcpp.link.link import Link  # noqa: E402
from cadcpp.native.lib import api  # noqa: E402
from cadcpp.native.rpc import Device, Spread  # noqa: E402


def main() -> None:
    parser = options_parser()
    parser.add_argument("--worker", required=True)
    parser.add_argument("--first", type=int, required=True, help="the first layer that the worker computes")
    parser.add_argument("--layers", type=int, required=True, help="of the model")
    options = parser.parse_args()
    times = TokenTimes()
    params = api.llama_model_default_params()
    params.use_extra_bufts = False
    link = Link(Address.parse(options.worker))
    device = Device(link.endpoint)
    spread = Spread((device,), (options.layers - options.first,), options.first, lambda: None)
    kept = spread.apply(params, options.layers)
    model = int(api.llama_model_load_from_file(options.m.encode(), params))
    del kept
    context = make_context(model, options.ctx, options.threads, same_settings=True)
    times.loaded()
    vocab = api.llama_model_get_vocab(model)
    prompt = tokenize(vocab, options.p.encode())
    before = replace(link.traffic)
    tokens = write(context, vocab, prompt, options.n, times)
    traffic = {
        "link_bytes_per_token": (link.traffic.n_bytes - before.n_bytes) // len(tokens),
        "round_trips_per_token": (link.traffic.round_trips - before.round_trips) / len(tokens),
    }
    print(json.dumps(times.record(tokens, len(prompt)) | traffic))


if __name__ == "__main__":
    run_program(main)
