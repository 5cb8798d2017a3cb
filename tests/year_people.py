"""Budgets of all kinds in all sorts of time zones, and the people who edit them."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from year_spend import CUSTOMERS, Arrival

from tallystick.alerts.config import Config, load_config

CHANNELS = ("team", "audit", "revoked")

ZONES = {
    "hour": ("UTC", "Asia/Kolkata", "Australia/Lord_Howe"),
    "day": ("UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "Asia/Kathmandu", "America/Santiago"),
    "day, each customer": ("America/St_Johns", "Australia/Sydney"),
    "day, calls": ("America/Los_Angeles", "Pacific/Auckland"),
    "day, tokens": ("UTC", "Europe/London"),
    "week": ("UTC", "Europe/Berlin", "America/New_York"),
    "week, each agent, tokens": ("UTC", "Europe/Lisbon"),
    "month": ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Chatham"),
    "month, each customer": ("UTC", "Europe/Berlin", "Asia/Tokyo"),
    "month, forecast": ("America/Sao_Paulo",),
    "month, each agent, forecast": ("Europe/Paris",),
    "quarter": ("UTC", "Australia/Adelaide"),
    "quarter, each customer": ("America/Toronto",),
    "2 weeks": ("UTC", "Europe/Berlin"),
    "1 months": ("UTC", "America/Havana"),
    "45 days, each customer": ("UTC",),
}
"""Kinds of budgets and where they are."""


def kind_of(name: str) -> str:
    """Budgets are called `KIND in ZONE`."""
    return name.partition(" in ")[0]


class People:
    """What the configuration says, which they edit. `budgets` by name; `config` is what the file comes to."""

    def __init__(self, chance: random.Random, per_day: dict[str, float]) -> None:
        """per_day: cost, tokens and calls of a day, by which budgets are made to be crossed now and then."""
        self._chance = chance
        self._former: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._out: dict[str, dict[str, Any]] = {}
        self.budgets = self._drafted(per_day)
        self.config = self._loaded()

    def _drafted(self, per_day: dict[str, float]) -> dict[str, dict[str, Any]]:
        budgets = {}
        for kind, zones in ZONES.items():
            period, *rest = kind.split(", ")
            words = period.split()
            unit = words[-1].removesuffix("s")
            days = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30, "quarter": 91}[unit] * (
                int(words[0]) if len(words) > 1 else 1
            )
            measure = next((one for one in rest if one in {"tokens", "calls"}), "cost")
            each = next((one.removeprefix("each ") for one in rest if one.startswith("each")), None)
            for zone in zones:
                name = f"{kind} in {zone}"
                expected = (
                    per_day[measure] * days / (4 if each else 1) * self._chance.uniform(0.7, 1.6) * (8 if unit == "hour" else 1)
                )
                fields: dict[str, Any] = {"name": name, "amount": f"{expected:.3g}", "timezone": zone, "notify": ["team"]}
                if self._chance.random() < 0.3:
                    fields["notify"] = ["team", "audit"]
                fields["period"] = period if len(words) == 1 else {"every": period, "start": "2027-10-31"}
                fields |= {"measure": measure} if measure != "cost" else {}
                fields |= {"each": each} if each else {}
                if "forecast" in kind:
                    fields["thresholds"] = [50, 80, 100, "forecast 80", "forecast 100"]
                elif self._chance.random() < 0.4:
                    fields["thresholds"] = self._chance.choice([[100], [25, 50, 75, 100, 150], [80, 100, 120], [90]])
                if not each and self._chance.random() < 0.4:
                    fields["scope"] = self._chance.choice(
                        [{"team": "blue"}, {"tag:plan": "free"}, {"customer": list(CUSTOMERS[:2])}]
                    )
                if self._chance.random() < 0.2:
                    fields["quiet_hours"] = {"from": "22:00", "until": "06:00"}
                if self._chance.random() < 0.2:
                    fields["minimum"] = f"{expected * 0.6:.3g}"
                if self._chance.random() < 0.2:
                    fields["notify"] = {"default": ["team", "audit"], fields.get("thresholds", [100])[-1]: ["team", "revoked"]}
                if unit == "week" and len(words) == 1 and self._chance.random() < 0.5:
                    fields["week_starts"] = "sunday"
                budgets[name] = fields
        return budgets

    def edit(self) -> str | None:
        """A budget's amount, thresholds, scope, or what isn't judged; an edit is taken back; or a budget is out for a while. What was done, if anything."""
        chance = self._chance
        if self._out and chance.random() < 0.5:
            name, fields = self._out.popitem()
            self.budgets[name] = fields
            self.config = self._loaded()
            return "in again"
        # Of an hour there is less to edit than of a quarter.
        name = chance.choice(
            sorted(name for name in self.budgets if not name.startswith(("hour", "day")) or chance.random() < 0.2)
        )
        before = self.budgets[name]
        fields = dict(before)
        amount = Decimal(str(fields["amount"]))
        what = chance.choice(("raise", "lower", "thresholds", "undo", "undo", "scope", "minimum", "share", "owners", "out"))
        match what:
            case "raise":
                fields["amount"] = str(amount * Decimal("1.5"))
            case "lower":
                fields["amount"] = str(amount * Decimal("0.65"))
            case "thresholds" if isinstance(fields["notify"], list):
                foreseen = [one for one in fields.get("thresholds", ()) if isinstance(one, str)]
                fields["thresholds"] = [*chance.choice([[50, 80, 100], [25, 60, 90, 120], [70, 100], [100]]), *foreseen]
            case "undo" if self._former[name]:
                fields = self._former[name].pop()
            case "scope" if not fields.get("each"):
                fields["scope"] = chance.choice([{}, {"team": "blue"}, {"team": ["blue", "red"]}, {"customer": "acme"}])
            case "minimum":
                fields["minimum"] = str(amount * chance.choice([Decimal(0), Decimal("0.6")]))
            case "share":
                fields["correction_percent"] = chance.choice([1, 5, 20])
            case "owners":
                fields["owners"] = [chance.choice(["kim", "lee"])]
            case "out" if len(self._out) < 3:
                self._out[name] = self.budgets.pop(name)
                fields = {}
            case _:
                return None
        if fields:
            if what != "undo":
                self._former[name] = [*self._former[name][-3:], before]
            self.budgets[name] = fields
        self.config = self._loaded()
        return what

    def _loaded(self) -> Config:
        channels = {name: {"type": "stdout"} for name in CHANNELS}
        config = load_config(json.dumps({"channels": channels, "budgets": list(self.budgets.values())}), {})
        assert not config.problems, [str(problem) for problem in config.problems]
        return config


def per_day(arrivals: Sequence[Arrival], days: float) -> dict[str, float]:
    entries = [one.entry for one in arrivals]
    return {
        "cost": float(sum((one.cost for one in entries if one.cost), Decimal(0))) / days,
        "tokens": sum(count or 0 for one in entries for count in one.tokens) / days,
        "calls": sum(one.calls for one in entries) / days,
    }
