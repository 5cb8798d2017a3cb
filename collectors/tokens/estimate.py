"""Tokens of a text without any tokenizer: words, digits, signs and the script that letters are of. Pure.

The weights fit o200k_base, the vocabulary of OpenAI's current models; docs/tokens.md has how far off they are.
"""

import math
import re
from typing import Final

LONGEST: Final = 8_192
"""Characters that are looked at. Of a longer text as many are, in windows spread over it, so that the time is bounded."""

WINDOWS: Final = 16


_TABLE: Final = 128


def _by_length(free: int, each: float) -> list[float]:
    """What a run costs by its length: a token for the first `free` characters, and one for every `each` further."""
    return [0.0] + [1.0 + max(0, length - free) / each for length in range(1, _TABLE)]


_ASCII_RUNS: Final = (
    (re.compile(r"[A-Za-z]+"), _by_length(7, 5.0)),
    (re.compile(r"[0-9]+"), _by_length(3, 3.0)),
    (re.compile(r"[!-/:-@\[-`{-~]+(?![A-Za-z])"), _by_length(2, 2.0)),
    (re.compile(r"[!-/:-@\[-`{-~](?=[A-Za-z])"), [0.0, 0.55]),  # often one token with the word after it
    (re.compile(r"\n\s*"), _by_length(64, 32.0)),
    (re.compile(r"(?<![\n ])  +"), _by_length(64, 32.0)),
    (re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+"), _by_length(4, 4.0)),
)
_OTHER_RUNS: Final = (
    (re.compile(r"[\u00c0-\u024f]+"), _by_length(1, 1.5)),  # inside a word, where they cut it in pieces
    (re.compile(r"[\u0400-\u06ff]+"), _by_length(3, 3.5)),  # Cyrillic, Armenian, Hebrew, Arabic
    (re.compile(r"[\u0370-\u03ff]+"), _by_length(2, 2.5)),  # Greek
)
"""Runs of characters that tokenizers keep together, and what one costs by its length."""

_OTHERS: Final = re.compile(r"[^\x00-\x7f]+")

_SINGLE: Final = (
    (re.compile(r"[\u3400-\u9fff\uf900-\ufaff]"), 0.78),  # Han
    (re.compile(r"[\u3040-\u30ff]"), 0.75),  # kana
    (re.compile(r"[\uac00-\ud7af]"), 0.65),  # Hangul
    (re.compile(r"[\u0900-\u0dff\u0e00-\u0fff]"), 0.45),  # scripts of India, Thai, Lao, Tibetan
    (re.compile(r"[\u0700-\u08ff\u1000-\u1fff]"), 1.2),
    (re.compile(r"[\u0080-\u00bf\u0250-\u036f\u2000-\u303f\ud800-\udfff\ufe00-\uffef]"), 0.8),  # signs and punctuation
    (re.compile(r"[\U00010000-\U0010ffff]"), 2.0),  # emoji, rare scripts
)
"""Characters of scripts without words between spaces, and those that are tokens, or several, by themselves."""


def estimate_text(text: str) -> int:
    """Tokens of `text`, at least 1 where it isn't empty. A millisecond at most, whatever its length."""
    if len(text) > LONGEST:
        size = LONGEST // WINDOWS
        step = (len(text) - size) // (WINDOWS - 1)
        sample = "".join(text[at * step : at * step + size] for at in range(WINDOWS))
        return math.ceil(_tokens(sample) * len(text) / len(sample))
    return math.ceil(_tokens(text))


def _tokens(text: str) -> float:
    total = sum(_cost(costs, pattern.findall(text)) for pattern, costs in _ASCII_RUNS)
    if not text.isascii():
        others = "\n".join(_OTHERS.findall(text))
        total += sum(_cost(costs, pattern.findall(others)) for pattern, costs in _OTHER_RUNS)
        total += sum(weight * len(pattern.findall(others)) for pattern, weight in _SINGLE)
    # Nothing is packed tighter than this: long runs of spaces, one letter repeated.
    return max(total, len(text) / 64)


def _cost(costs: list[float], runs: list[str]) -> float:
    try:
        return sum(map(costs.__getitem__, map(len, runs)))
    except IndexError:
        # Longer than words are. The table goes up evenly from somewhere in it.
        slope = costs[-1] - costs[-2]
        return sum(costs[min(len(run), _TABLE - 1)] + slope * max(0, len(run) - _TABLE + 1) for run in runs)
