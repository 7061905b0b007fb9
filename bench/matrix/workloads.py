"""Workloads: prompts of eight kinds, since how well a draft guesses depends on the text more than on anything else."""

_REPORT = """The city of Harlow opened its first night bus in March. In the first month 4,100 people rode it, in the
sixth 11,800. Most of them work shifts at the hospital or in the bakeries along the canal. The line costs 38,000 pounds
a month, of which fares cover a third. The council wanted to end it in autumn, but the hospital offered to pay for half
of what is missing, and the bakers' association for a tenth. A second line, to the station, starts in January."""

_CODE = """def total(items):
    x = 0
    for item in items:
        if item.price > 0:
            x = x + item.price
        else:
            print("no price", item.name)
    return x

def average(items):
    x = total(items)
    if len(items) == 0:
        return 0
    return x / len(items)"""

CASES = {
    "chat": "Hi! I have a free Saturday and it is going to rain. What could I do at home?",
    "story": "Tell a short story about a dragon and a baker.",
    "code": "Write a Python function that returns the prime numbers below n, with a docstring and an example.",
    "tips": "Give ten tips for learning a new language.",
    "summary": f"{_REPORT}\n\nSummarise this in three sentences.",
    "translation": "Translate into French: The museum is closed on Mondays. Tickets cost twelve euros, children enter "
    "free, and the café on the roof is open until nine.",
    "maths": "A train leaves at 9:40 and drives 210 km at 70 km/h, then waits 15 minutes. When does it go on? "
    "Show every step.",
    "dialogue": "Write a dialogue between a customer and a watchmaker about an old watch that runs backwards.",
}

COPIES = {  # texts that say again what the prompt says
    "edit": f"Rename the variable x to count in this Python code and write the whole code again:\n\n{_CODE}",
    "quote": f"Repeat this report word for word:\n\n{_REPORT}",
    "summary": CASES["summary"],
}


def in_template(case: str) -> str:
    """A case's prompt as SmolLM2's chat template writes it."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    turns = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{(CASES | COPIES)[case]}<|im_end|>\n"
    return f"{turns}<|im_start|>assistant\n"


_TOKENS_PER_CHARACTER = 0.292  # at most, of the text below in SmolLM2's vocabulary


def long_prompt(n_tokens: int) -> str:
    """About so many tokens, or a few less: notes that differ, and at their end a question."""
    texts, n = list(CASES.values()), int(n_tokens / _TOKENS_PER_CHARACTER)
    notes, ending = "", "\n\nTell a short story about one of these notes.\n"
    for i in range(n // 60 + 1):
        notes += f"Note {i}: {texts[i * 5 % len(texts)]}\n"
    return notes[: n - len(ending)] + ending
