"""What models cost, by the names that commands take."""

from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from genai_prices.data import providers

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import UserPrices, load_prices_file
from tallystick.estimating import Rates, rates_in


def book_of(config: Path | None) -> PriceBook:
    """The public list under the file's prices. Raises PriceFileError, OSError."""
    return PriceBook(load_prices_file(config) if config else UserPrices())


def rates_of(name: str, book: PriceBook, at: datetime) -> Rates | None:
    """Of `PROVIDER/MODEL`, or of a model's name alone."""
    provider, slash, model = name.partition("/")
    found = rates_in(book, model, provider, at) if slash else None
    return found or rates_in(book, name, None, at)


def meant(name: str) -> str:
    """What to do about a name that has no price."""
    listed = {f"{provider.id}/{model.id}" for provider in providers for model in provider.models}
    close = get_close_matches(name, listed, 1) or get_close_matches(name, {one.partition("/")[2] for one in listed}, 1)
    return f"did you mean {close[0]}?" if close else "`tallystick prices list` has all; state others in a file (docs/prices.md)"
