"""How far estimates of tokens are off, and what counting costs.

.venv/bin/python benchmarks/token_estimates.py

Prints, for texts of several kinds, the count in o200k_base beside the estimate that is made without an encoding; then what each costs.
"""

import argparse
import json
import os
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SITE = Path(sysconfig.get_path("purelib"))


def texts() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "tests" / "texts").glob("*.txt")):
        yield path.stem, path.read_text(encoding="utf-8")
    yield "Python (argparse)", Path(argparse.__file__).read_text(encoding="utf-8")
    yield "SQL (normalise)", (ROOT / "schema" / "sql" / "normalise.sql").read_text(encoding="utf-8")
    yield "Markdown (README)", (ROOT / "README.md").read_text(encoding="utf-8")
    yield (
        "JSON, compact",
        json.dumps({"rows": [{"id": n, "name": f"item {n}", "price": n / 7, "ok": n % 2 == 0} for n in range(300)]}),
    )
    for language in ("de", "fr", "es", "pl", "ru", "el", "ar", "hi", "th", "zh_Hans", "ja", "ko"):
        catalogue = SITE / "django" / "conf" / "locale" / language / "LC_MESSAGES" / "django.po"
        if catalogue.exists():
            yield f"messages, {language}", "\n".join(re.findall(r'msgstr "(.+)"', catalogue.read_text(encoding="utf-8")))


def microseconds(function: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        function(text)
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import vocabularies

    os.environ["TIKTOKEN_CACHE_DIR"] = str(vocabularies.directory())
    from tallystick.collectors.tokens import count_messages, count_text, estimate_text

    start = time.perf_counter()
    if count_text("gpt-4o", "").source != "tokenizer":
        sys.exit("there is no o200k_base")
    print(f"loading o200k_base: {(time.perf_counter() - start) * 1e3:.0f} ms\n")
    print(f"{'text':24}{'characters':>11}{'tokens':>8}{'estimate':>10}{'error':>8}")
    errors = []
    for name, text in texts():
        tokens, estimate = count_text("gpt-4o", text).tokens, estimate_text(text)
        errors.append(estimate / tokens - 1)
        print(f"{name:24}{len(text):11,}{tokens:8,}{estimate:10,}{errors[-1]:+8.0%}")
    print(f"\nworst {max(errors, key=abs):+.0%}, mean of the absolute errors {sum(map(abs, errors)) / len(errors):.0%}\n")
    english = (ROOT / "tests" / "texts" / "english.txt").read_text(encoding="utf-8") * 4
    tokens = count_text("gpt-4o", english).tokens
    chat = [{"role": "user", "content": english}]
    for name, function in (
        ("count_text", lambda text: count_text("gpt-4o", text)),
        ("count_messages", lambda _: count_messages("gpt-4o", chat)),
        ("estimate_text", estimate_text),
    ):
        print(f"{name}: {microseconds(function, english) * 1000 / tokens:.0f} µs for 1,000 tokens of English")
    print(f"count_text of nothing: {microseconds(lambda text: count_text('gpt-4o', text), ''):.1f} µs")
    million = english * 250
    print(f"estimate_text of {len(million) / 1e6:.1f} million characters: {microseconds(estimate_text, million) / 1e3:.1f} ms")


if __name__ == "__main__":
    main()
