"""An invented company: the customers, features, agents and models over which a trace's calls are spread."""

import struct
from bisect import bisect
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Final, NamedTuple


class Model(NamedTuple):
    """A model as its instrumentation (`scope`) names it. Speeds are tokens a second, invented but of the right order."""

    provider: str
    request_model: str
    response_model: str
    scope: str
    prefill_speed: int
    decode_speed: int
    bills_cache_writes: bool = False


_OPENAI, _ANTHROPIC, _GOOGLE = (
    "opentelemetry.instrumentation.genai.openai",
    "opentelemetry.instrumentation.genai.anthropic",
    "opentelemetry.instrumentation.google_genai",
)
GPT: Final = Model("openai", "gpt-5", "gpt-5-2025-08-07", _OPENAI, 9_000, 80)
GPT_MINI: Final = Model("openai", "gpt-5-mini", "gpt-5-mini-2025-08-07", _OPENAI, 14_000, 130)
SONNET: Final = Model("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", _ANTHROPIC, 8_000, 70, True)
HAIKU: Final = Model("anthropic", "claude-haiku-4-5", "claude-haiku-4-5-20251001", _ANTHROPIC, 15_000, 160, True)
FLASH: Final = Model("gcp.gemini", "gemini-2.5-flash", "gemini-2.5-flash", _GOOGLE, 20_000, 200)
SELF_HOSTED: Final = Model("vllm", "inhouse-24b-instruct", "inhouse-24b-instruct", _OPENAI, 6_000, 45)
"""Runs on the company's own machines: nobody publishes a price for it, so that the demo shows what is unpriced."""


class Feature(NamedTuple):
    """A feature of the product: who answers for it, which models it calls with what weights, and the share of streamed calls."""

    name: str
    agent: str
    team: str
    service: str
    streamed: float
    models: tuple[tuple[Model, int], ...]


class Work:
    """A kind of traffic: the features that cause it, each with its share of the calls."""

    def __init__(self, *features: tuple[Feature, int]) -> None:
        self.features = tuple(feature for feature, _ in features)
        self._steps = _steps([share for _, share in features])
        self._models = [_steps([share for _, share in feature.models]) for feature in self.features]

    def draw(self, feature_draw: float, model_draw: float) -> tuple[Feature, Model]:
        """The feature and the model of a call for two numbers in [0, 1)."""
        index = bisect(self._steps, feature_draw)
        feature = self.features[index]
        return feature, feature.models[bisect(self._models[index], model_draw)][0]


def _steps(weights: Sequence[float]) -> list[float]:
    # The last step is left out: whatever rounding does to it, a draw below 1 falls into the last class.
    total = sum(weights)
    return [step / total for step in accumulate(weights)][:-1]


CODING: Final = Work(
    (
        Feature(
            "code-completion", "completer", "developer-tools", "editor", 0.9, ((GPT_MINI, 55), (HAIKU, 35), (SELF_HOSTED, 10))
        ),
        70,
    ),
    (Feature("code-review", "reviewer", "developer-tools", "review-bot", 0.0, ((SONNET, 60), (GPT, 40))), 30),
)
CONVERSATION: Final = Work(
    (
        Feature(
            "support-chat", "support-bot", "customer-care", "support", 0.95, ((GPT_MINI, 50), (HAIKU, 40), (SELF_HOSTED, 10))
        ),
        50,
    ),
    (Feature("search-answers", "retriever", "search", "search", 0.6, ((FLASH, 1),)), 30),
    (Feature("email-drafts", "writer", "growth", "mailer", 0.0, ((GPT, 50), (FLASH, 50))), 20),
)
ASSISTANT: Final = Work(
    (
        Feature("assistant", "planner", "assistant", "assistant", 0.95, ((GPT, 40), (SONNET, 40), (FLASH, 18), (SELF_HOSTED, 2))),
        50,
    ),
    (Feature("document-chat", "reader", "assistant", "assistant", 0.9, ((FLASH, 60), (GPT_MINI, 40))), 35),
    (Feature("research", "researcher", "research", "research", 0.2, ((SONNET, 50), (GPT, 50))), 15),
)

CUSTOMERS: Final = (
    "northwind-freight",
    "bluefin-bank",
    "cedar-health",
    "quarry-games",
    "larkspur-media",
    "tidewater-energy",
    "ironwood-legal",
    "saffron-retail",
    "polar-insurance",
    "kestrel-airways",
    "moss-and-co",
    "harbor-logistics",
    "juniper-labs",
    "copperline-telecom",
    "willow-education",
    "basalt-mining",
    "orchard-foods",
    "fjord-travel",
    "lantern-analytics",
    "meadow-biotech",
    "anvil-robotics",
    "coral-hotels",
    "drift-mobility",
    "ember-studios",
    "falcon-security",
    "garnet-jewels",
    "heron-water",
    "indigo-textiles",
    "jasper-realty",
    "kelp-fisheries",
    "linden-pharma",
    "marble-architects",
    "nimbus-weather",
    "opal-optics",
    "pine-furniture",
    "quill-press",
    "raven-audio",
    "sable-motors",
    "thistle-gardens",
    "umber-paints",
    "violet-cosmetics",
    "walnut-wealth",
    "yarrow-clinics",
    "zephyr-wind",
    "aster-events",
    "birch-publishing",
    "clover-dairy",
    "dune-outdoors",
    "elm-accounting",
    "fern-florists",
)
"""Fifty, the largest first: the n-th calls in proportion to n^-1.1, as customers are skewed."""

_PLANS: Final = ("enterprise",) * 5 + ("pro",) * 15 + ("free",) * 30


class Caller(NamedTuple):
    """Who a call was for and what answered it. `session` is empty where the trace tells of no conversation."""

    customer: str
    plan: str
    user: str
    session: str
    feature: Feature
    model: Model
    streamed: bool
    pace: float
    """Factor on the model's speeds for this call, 0.7 to 1.3."""


_CUSTOMER_STEPS: Final = _steps([rank**-1.1 for rank in range(1, len(CUSTOMERS) + 1)])
_DRAWS = struct.Struct("<6I").unpack


def caller(identity: bytes, conversation: int | None, work: Work) -> Caller:
    """Draw the caller of one call from `identity` (any bytes; equal bytes draw equal callers).

    Calls of one conversation share everything, for a prompt can only be found in the cache of the model that saw it before: their
    `identity` is the conversation's.
    """
    customer_draw, feature_draw, model_draw, user_draw, stream_draw, pace_draw = (
        draw / 2**32 for draw in _DRAWS(blake2b(identity, digest_size=24).digest())
    )
    rank = bisect(_CUSTOMER_STEPS, customer_draw)
    feature, model = work.draw(feature_draw, model_draw)
    name = CUSTOMERS[rank]
    user = f"{name}-{1 + int(user_draw * max(2, 120 // (rank + 1)))}"
    session = "" if conversation is None else f"conversation-{conversation}"
    return Caller(name, _PLANS[rank], user, session, feature, model, stream_draw < feature.streamed, 0.7 + 0.6 * pace_draw)
