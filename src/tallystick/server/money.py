"""Amounts in answers."""

from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer

Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json")]
"""A decimal that JSON has as a string with all its decimals, never as `1E-7`."""
