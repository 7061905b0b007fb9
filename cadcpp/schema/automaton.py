"""A finite automaton for a language, without states that lead nowhere."""

from collections import deque
from dataclasses import dataclass

from cadcpp.schema.charset import CharSet
from cadcpp.schema.language import NOTHING, Language, classes, derivative, forget, n_taken, nullable

_MOST = 4000  # states; llama.cpp holds a rule of its grammar for each
_MOST_STEPS = 50_000  # derivatives: whoever asks for a schema must not keep a server busy with it


class TooLarge(Exception):
    """The language has more states than a grammar should have."""


@dataclass(frozen=True, slots=True)
class Automaton:
    """``edges[state]`` has the characters that lead on and where to; state 0 is the first."""

    edges: list[list[tuple[CharSet, int]]]
    ends: list[bool]  # whether a string may end here


def automaton(language: Language) -> Automaton | None:
    """Of a language; None if no string is in it. Raises TooLarge."""
    try:
        return _explored(language)
    finally:
        forget()


def _explored(language: Language) -> Automaton | None:
    numbers, edges, ends = {language: 0}, list[list[tuple[CharSet, int]]](), list[bool]()
    pending = deque((language,))
    while pending:
        state = pending.popleft()
        ends.append(nullable(state))
        targets: dict[int, CharSet] = {}
        for chars in sorted(classes(state), key=lambda chars: chars.ranges):  # one schema, one grammar
            after = derivative(state, chars.ranges[0][0])
            if after == NOTHING:
                continue
            if after not in numbers:
                numbers[after] = len(numbers)
                pending.append(after)
                if len(numbers) > _MOST or n_taken() > _MOST_STEPS:
                    raise TooLarge
            number = numbers[after]
            targets[number] = targets[number] | chars if number in targets else chars
        edges.append([(chars, number) for number, chars in sorted(targets.items())])
    return _trimmed(edges, ends)


def _trimmed(edges: list[list[tuple[CharSet, int]]], ends: list[bool]) -> Automaton | None:
    """Without states from which no end is reached."""
    before: list[list[int]] = [[] for _ in edges]
    for state, out in enumerate(edges):
        for _, target in out:
            before[target].append(state)
    alive, pending = set[int](), [state for state, end in enumerate(ends) if end]
    while pending:
        state = pending.pop()
        if state not in alive:
            alive.add(state)
            pending += before[state]
    if 0 not in alive:
        return None
    numbers = {state: i for i, state in enumerate(sorted(alive))}
    kept = [[(chars, numbers[target]) for chars, target in edges[state] if target in alive] for state in numbers]
    return Automaton(kept, [ends[state] for state in numbers])
