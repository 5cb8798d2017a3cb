"""A message in words, before a channel escapes and lays it out: what isn't known has no line. Pure, plain text, of bounded length."""

from dataclasses import dataclass, replace

from tallystick.alerts import figures
from tallystick.alerts.model import Driver, Forecast, Measure, Message, Outlier, Period

TITLE, REASON, NAME, SQL, URL = 150, 500, 80, 2000, 1000
DRIVERS, OUTLIERS, LINKS, SCOPE = 12, 5, 5, 10
LABELS = {Measure.COST: "Spent", Measure.TOKENS: "Tokens", Measure.CALLS: "Calls"}


@dataclass(frozen=True)
class Fact:
    """`Spent`: `at least 80.40 of 100.00 USD (80.4 %)`."""

    label: str
    value: str


@dataclass(frozen=True)
class DriverLine:
    """`customer acme`, `61.20 USD`, `76 %`, `up 42.00 USD from 19.20 USD` or empty where the last period isn't known."""

    name: str
    spent: str
    share: str
    change: str


@dataclass(frozen=True)
class Link:
    """An http or https URL; others aren't told."""

    label: str
    url: str


@dataclass(frozen=True)
class Text:
    """What templates lay out. title: the line that a phone shows. note: what went wrong in making this message, or empty."""

    title: str
    reason: str
    severity: str
    facts: tuple[Fact, ...]
    drivers_title: str
    drivers: tuple[DriverLine, ...]
    more_drivers: int
    outliers: tuple[str, ...]
    more_outliers: int
    links: tuple[Link, ...]
    sql: str
    note: str = ""

    def with_note(self, note: str) -> "Text":
        return replace(self, note=figures.line(note, REASON))


def text(message: Message) -> Text:
    """The whole message in words. Names, which others choose, come out as single lines; they are escaped by who lays them out."""
    compared = any(driver.before is not None for driver in message.drivers)
    return Text(
        title=figures.line(message.title, TITLE),
        reason=figures.line(message.reason, REASON),
        severity=figures.line(message.severity, NAME),
        facts=tuple(_facts(message)),
        drivers_title="Top drivers, beside the same stretch of the last period" if compared else "Top drivers",
        drivers=tuple(_driver(driver, message.measure) for driver in message.drivers[:DRIVERS]),
        more_drivers=max(0, len(message.drivers) - DRIVERS),
        outliers=tuple(_outlier(outlier) for outlier in message.outliers[:OUTLIERS]),
        more_outliers=max(0, len(message.outliers) - OUTLIERS),
        links=tuple(_links(message)),
        sql=_sql(message.sql),
    )


def _facts(message: Message) -> list[Fact]:
    facts: list[Fact] = []
    partly = message.measure is Measure.COST and message.priced_share is not None and message.priced_share < 1
    if message.spent is not None:
        told = figures.amount(message.spent, message.measure)
        if message.amount is not None:
            told = f"{figures.number(message.spent, message.measure)} of {figures.amount(message.amount, message.measure)}"
        if message.percent is not None:
            told += f" ({figures.percent(message.percent)})"
        facts.append(Fact(LABELS[message.measure], f"at least {told}" if partly else told))
    if message.period is not None:
        facts.append(Fact("Period", _period(message.period, message)))
    if message.forecast is not None:
        facts.append(Fact("Forecast", _forecast(message.forecast, message.measure)))
    if message.burn is not None:
        facts.append(Fact("Burn rate", f"{figures.times(message.burn)} times the plan"))
    if message.measure is Measure.COST and message.priced_share is not None:
        told = f"{figures.share(message.priced_share)} of the tokens"
        facts.append(Fact("Priced", f"{told}; what the others cost is not in the sum" if partly else told))
    if message.scope:
        names = [f"{figures.line(k, NAME)} {_name(v)}" for k, v in list(message.scope.items())[:SCOPE]]
        facts.append(Fact("Scope", _listed(names, len(message.scope))))
    if message.owners:
        facts.append(Fact("Owners", _listed([_name(owner) for owner in message.owners[:SCOPE]], len(message.owners))))
    return facts


def _period(period: Period, message: Message) -> str:
    label = figures.line(period.label, NAME)
    if message.at >= period.end:
        return f"{label}, has ended"
    return f"{label}, {figures.duration(period.end - message.at)} left"


def _forecast(forecast: Forecast, measure: Measure) -> str:
    span = f"{figures.number(forecast.low, measure)} to {figures.amount(forecast.high, measure)}"
    return f"{figures.amount(forecast.expected, measure)} by the end of the period; {span} in 8 of 10 cases"


def _driver(driver: Driver, measure: Measure) -> DriverLine:
    return DriverLine(
        name=f"{figures.line(driver.dimension, NAME)} {_name(driver.value)}",
        spent=figures.amount(driver.spent, measure),
        share=figures.share(driver.share),
        change=_change(driver, measure),
    )


def _change(driver: Driver, measure: Measure) -> str:
    if driver.before is None:
        return ""
    grown = driver.spent - driver.before
    if not driver.before:
        return "new" if grown else ""
    if not grown:
        return "as before"
    return f"{'up' if grown > 0 else 'down'} {figures.amount(abs(grown), measure)} from {figures.amount(driver.before, measure)}"


def _outlier(outlier: Outlier) -> str:
    tokens, usual = f"{outlier.tokens:,} tokens", f"where {outlier.usual_tokens:,} are usual"
    told = [f"{tokens} {usual}: {_name(outlier.model)}"]
    if outlier.cost is not None:
        told.append(figures.amount(outlier.cost))
    told += [f"{outlier.started_at:%Y-%m-%d %H:%M:%S} UTC", f"trace {_name(outlier.trace_id)}"]
    return ", ".join(told)


def _links(message: Message) -> list[Link]:
    """Those that can be opened, and are whole: a URL that was cut would lead elsewhere."""
    able = [
        Link(figures.line(label, NAME), url)
        for label, url in message.links.items()
        if len(url) <= URL
        and url.lower().startswith(("http://", "https://"))
        and figures.line(url, URL) == url
        and " " not in url
    ]
    return able[:LINKS]


def _sql(sql: str) -> str:
    told = "\n".join(figures.clean(row.expandtabs(2)).rstrip() for row in sql[: 2 * SQL].splitlines()).strip("\n")
    return told if len(told) <= SQL else told[: SQL - 40].rstrip() + "\n-- cut here: too long for a message"


def _name(value: str) -> str:
    return figures.line(value, NAME) or "(none)"


def _listed(names: list[str], total: int) -> str:
    return ", ".join(names) + (f" and {total - len(names):,} more" if total > len(names) else "")
