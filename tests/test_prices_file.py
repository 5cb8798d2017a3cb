"""The user's prices: what is accepted, and what is said about what isn't."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import PriceFileError, UserPrices, load_prices, load_prices_file
from tallystick.schema.models import Seen

EXAMPLE = Path(__file__).parent.parent / "docs" / "prices.example.yaml"


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "tallystick.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PriceFileError) as error:
        load_prices_file(path)
    return [problem.removeprefix(str(tmp_path) + "/") for problem in error.value.problems]


def test_the_example_of_the_docs() -> None:
    prices = load_prices_file(EXAMPLE)
    assert prices == load_prices(yaml.safe_load(EXAMPLE.read_text()))
    book = PriceBook(prices)
    at = datetime(2026, 11, 1, tzinfo=UTC)

    def input_and_output(*seen: str) -> tuple[Decimal, Decimal]:
        price = next(row for row in reversed(book.rows([Seen(*seen)])) if row.valid_from <= at)
        return price.rates[0] * 1_000_000, price.rates[4] * 1_000_000

    assert input_and_output("vllm", "acme-7b-awq", "", "") == (
        Decimal("0.11") * Decimal("1.0842") * Decimal("1.08") * Decimal("1.025"),
        Decimal("0.42") * Decimal("1.0842") * Decimal("1.08") * Decimal("1.025"),
    )
    assert input_and_output("acme_gateway", "gpt-5", "", "") == (
        Decimal("1.05") * Decimal("1.025"),
        Decimal("8.4") * Decimal("1.025"),
    )
    assert input_and_output("openai", "gpt-5", "", "batch") == (Decimal("0.5") * Decimal("1.025"), 4 * Decimal("1.025"))
    assert input_and_output("anthropic", "claude-haiku-4-5", "", "")[0] == Decimal("0.875") * Decimal("1.025")
    assert input_and_output("vllm", "acme-7b", "", "batch")[1] == Decimal("0.42") * Decimal("1.0842") * Decimal("1.08") * Decimal(
        "0.4"
    ) * Decimal("1.025")


@pytest.mark.parametrize("config", [{}, {"budgets": []}, {"prices": None}, {"prices": {}}])
def test_no_prices_is_fine(config: dict[str, object]) -> None:
    assert load_prices(config) == UserPrices()
    assert PriceBook(load_prices(config)).id == PriceBook().id


def test_the_book_changes_with_the_file_and_only_with_it() -> None:
    entry = {"model": "a", "per_million_tokens": {"input": 1}}
    ids = {
        PriceBook(load_prices({"prices": prices})).id
        for prices in ({}, {"models": [entry]}, {"models": [entry | {"source": "x"}]}, {"markups": [{"percent": 1}]})
    }
    assert len(ids) == 4
    assert PriceBook(load_prices({"prices": {"models": [entry]}, "budgets": 1})).id in ids


MODEL = "prices:\n  models:\n    - model: m\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prices:\n  modles: []\n", "tallystick.yaml:2: prices.modles: unknown field; did you mean `models`?"),
        (
            MODEL + "      per_million_tokens:\n        inptu: 1\n",
            "tallystick.yaml:5: prices.models[0].per_million_tokens.inptu: unknown field; did you mean `input`?",
        ),
        (
            MODEL + "      above:\n        - per_million_tokens: {zzz: 1}\n          input_tokens: 5\n",
            "tallystick.yaml:5: prices.models[0].above[0].per_million_tokens.zzz: unknown field; known here: input, cache_read, ",
        ),
        ("prices:\n  models:\n    - per_request: 1\n", "tallystick.yaml:3: prices.models[0].model: is missing: add `model`"),
        (MODEL, "tallystick.yaml:3: prices.models[0]: states no price: add `per_million_tokens` or `per_request`"),
        (
            MODEL + "      per_request: -1\n",
            "tallystick.yaml:4: prices.models[0].per_request: Input should be greater than or equal to 0",
        ),
        (MODEL + "      per_request: .nan\n", "tallystick.yaml:4: prices.models[0].per_request: "),
        (MODEL + "      per_request: .inf\n", "tallystick.yaml:4: prices.models[0].per_request: "),
        (MODEL + "      per_request: true\n", "tallystick.yaml:4: prices.models[0].per_request: write a number (found True)"),
        (
            MODEL + "      per_request: cheap\n",
            "tallystick.yaml:4: prices.models[0].per_request: Input should be a valid decimal",
        ),
        (
            MODEL + "      per_request: 1\n      from: 2026-05-01\n      until: 2026-05-01\n",
            "tallystick.yaml:3: prices.models[0]: `until` must be after `from`",
        ),
        (MODEL + "      per_request: 1\n      from: soon\n", "tallystick.yaml:5: prices.models[0].from: "),
        (
            MODEL + "      per_request: 1\n      from: 2026\n",
            "tallystick.yaml:5: prices.models[0].from: write a date (2026-01-31)",
        ),
        (
            MODEL + "      per_request: 1\n      from: 1969-07-20\n",
            "tallystick.yaml:3: prices.models[0]: `from` lies before 1970",
        ),
        (
            MODEL + "      per_request: 1\n      currency: CHF\n",
            "tallystick.yaml:2: prices.models: models[0] is in CHF, which has no exchange rate: add `exchange_rates: {CHF: …}`",
        ),
        (
            MODEL + "      per_request: 1\n      currency: chf\n",
            "tallystick.yaml:5: prices.models[0].currency: three capital letters such as EUR",
        ),
        (
            "prices:\n  models:\n    - {model: 'a b', per_request: 1}\n",
            "tallystick.yaml:3: prices.models[0].model[0]: a name without spaces",
        ),
        ("prices:\n  exchange_rates: {EUR: 0}\n", "tallystick.yaml:2: prices.exchange_rates.EUR: Input should be greater than 0"),
        ("prices:\n  discounts: [{percent: 101}]\n", "tallystick.yaml:2: prices.discounts[0].percent: Input should be less than"),
        ("prices:\n  service_tiers: [{factor: 1}]\n", "tallystick.yaml:2: prices.service_tiers[0].service_tier: is missing: add"),
        (
            MODEL + "      per_million_tokens: {input: 1}\n      above:\n"
            "        - {input_tokens: 9, per_million_tokens: {input: 1}}\n"
            "        - {input_tokens: 9, per_million_tokens: {input: 2}}\n",
            "tallystick.yaml:3: prices.models[0]: `above` must be in ascending order",
        ),
        (
            MODEL + "      per_million_tokens: {input: 900000}\n  markups: [{percent: 1000}, {percent: 1000}]\n",
            "tallystick.yaml:1: prices: models[0] comes to more than 100 USD a token: prices are for a million tokens",
        ),
        (
            MODEL + "      per_request: 1\n      per_request: 2\n",
            "tallystick.yaml:5: `per_request` is there twice in the same place",
        ),
        ("prices: [\n", "tallystick.yaml:2: not valid YAML: "),
        ("- prices\n", "tallystick.yaml: expected a mapping with the key `prices`"),
        ("prices: 3\n", "tallystick.yaml:1: prices: "),
    ],
)
def test_what_is_wrong_is_said_with_line_field_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    found = problems(tmp_path, text)
    assert [problem for problem in found if problem.startswith(said)], found


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "prices:\n  models:\n    - {model: a, per_requst: 1}\n    - {per_request: -1}\n  zzz: 1\n")
    assert [problem.split(" ")[1] for problem in found] == [
        "prices.models[0].per_requst:",
        "prices.models[1].model:",
        "prices.models[1].per_request:",
        "prices.zzz:",
    ]


def test_a_parsed_configuration_has_no_lines_to_name() -> None:
    with pytest.raises(PriceFileError, match=r"^configuration: prices\.zzz: unknown field"):
        load_prices({"prices": {"zzz": 1}})
    with pytest.raises(PriceFileError, match=r"^etc/x\.yaml: prices\.zzz"):
        load_prices({"prices": {"zzz": 1}}, "etc/x.yaml")


def test_numbers_of_yaml_are_taken_at_their_word(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("prices: {models: [{model: m, per_million_tokens: {input: 0.1, output: 1e-7, cache_read: '0.30'}}]}")
    stated = load_prices_file(path).models[0].per_million_tokens.stated()
    assert stated == {"input": Decimal("0.1"), "output": Decimal("1e-7"), "cache_read": Decimal("0.30")}
