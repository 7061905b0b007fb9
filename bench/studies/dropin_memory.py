"""What the drop-in class holds in memory, beside upstream's at its own defaults with the same model and context.

    python -m bench.studies.dropin_memory

Each is made in a process of its own, answers once, and says what is resident, mapped weights included.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

import psutil

from bench.measure import record
from bench.program import run_program

CTX = 4096
SYSTEMS = {
    "llama_cpp.Llama": "upstream",
    "llama_cpp.Llama, prompt lookup": "lookup",
    "cadcpp.Llama": "ngram",
    "cadcpp.Llama with a draft": "draft",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.dropin_memory", description=__doc__)
    parser.add_argument("--one", choices=SYSTEMS.values(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    print(f"{'MB, context of ' + str(CTX):<34}{'made':>8}{'answered':>10}{'not of the file':>17}")
    for name, kind in SYSTEMS.items():
        command = [sys.executable, "-m", "bench.studies.dropin_memory", "--one", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        made, answered, own = (n / 1e6 for n in json.loads(done.stdout).values())
        print(f"{name:<34}{made:8.0f}{answered:10.0f}{own:17.0f}")
    print(f"the draft's file has {record.demo_draft().stat().st_size / 1e6:.0f} MB")


def measure(kind: str) -> dict[str, int]:
    """Resident bytes when the object is made, after an answer, and of the latter those that no file backs."""
    llama = make(kind)
    made = psutil.Process().memory_info().rss
    llama.create_completion("The sky is blue because " * 60, max_tokens=32, temperature=0.0)
    memory = psutil.Process().memory_info()
    return {"made_bytes": made, "answered_bytes": memory.rss, "own_bytes": memory.rss - memory.shared}


def make(kind: str) -> Any:
    """One of the systems. What another one needs is not imported."""
    path = record.demo_verifier()
    if kind in ("draft", "ngram"):
        from cadcpp import Llama

        draft = record.demo_draft() if kind == "draft" else None
        return Llama(str(path), draft_model_path=draft, verbose=False, n_ctx=CTX)
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    from bench.baselines import upstream

    guess = LlamaPromptLookupDecoding() if kind == "lookup" else None
    # Without all logits it crashes once a text with drafts is longer than one batch.
    return upstream.load(path, n_ctx=CTX, draft_model=guess, logits_all=guess is not None)


if __name__ == "__main__":
    run_program(main)
