"""When recurring probes are due: the `probes:` part of the configuration file, and its triggers."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tallystick.alerts.config_fields import Duration, Zone
from tallystick.attribution.config_file import ConfigFileError, problems_of, read

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ProbeSchedule(BaseModel):
    """A probe that is run again and again. config: a file as `tallystick probe run` takes it, relative to the configuration file.

    every: at whole multiples since 1970, so that all replicas mean the same moment; cron: five fields, on the clock of `timezone`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")
    config: Path
    every: Duration | None = None
    cron: str | None = None
    timezone: Zone = "UTC"
    timeout: Duration = timedelta(hours=2)
    """After which it is ended, with what was measured by then."""

    @field_validator("cron")
    @classmethod
    def _can_come(cls, cron: str | None) -> str | None:
        if cron is not None:
            if len(fields := cron.split()) != 5:
                raise ValueError("write five fields: minute, hour, day of the month, month, day of the week, such as `0 3 * * *`")
            if fields[2] != "*" and fields[4] != "*":
                raise ValueError("name days of the month or days of the week, one of them: cron itself takes either, others both")
            if _cron(cron, "UTC").get_next_fire_time(None, datetime.now(UTC)) is None:
                raise ValueError("that never comes")
        return cron

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("give `every` or `cron`, one of them")
        return self

    @property
    def when(self) -> str:
        """`every 6:00:00`, or `0 3 * * * Europe/Berlin`."""
        return f"every {self.every}" if self.every else f"{self.cron} {self.timezone}"


class _Schedules(BaseModel):
    probes: tuple[ProbeSchedule, ...] = ()

    @field_validator("probes")
    @classmethod
    def _named_once(cls, schedules: tuple[ProbeSchedule, ...]) -> tuple[ProbeSchedule, ...]:
        names = [one.name for one in schedules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the name {twice} is there twice")
        return schedules


class _OnceAWallTime(CronTrigger):  # type: ignore[misc]
    """An hour that comes twice, where clocks are set back, is due once where it is named."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        found: datetime | None = super().get_next_fire_time(previous_fire_time, now)
        if previous_fire_time and found and _wall(found) == _wall(previous_fire_time):
            found = super().get_next_fire_time(found, found)
        return found


def trigger(schedule: ProbeSchedule) -> Any:
    """APScheduler's trigger."""
    if schedule.every is not None:
        return IntervalTrigger(seconds=int(schedule.every.total_seconds()), start_date=_EPOCH, timezone=UTC)
    return _cron(schedule.cron or "", schedule.timezone)


def read_schedules(text: str, file: str = "configuration") -> tuple[ProbeSchedule, ...]:
    """The section of a YAML text; others aren't looked at. Raises ConfigFileError with every problem by line."""
    found = read(text, file, "probes", "docs/probes.md")
    try:
        return _Schedules.model_validate({"probes": found.content.get("probes") or ()}).probes
    except ValidationError as error:
        raise ConfigFileError(problems_of(error, _Schedules, (), file, found.line)) from None


def load_schedules(path: Path) -> tuple[ProbeSchedule, ...]:
    """`read_schedules` of a file, whose folder relative paths start from. Raises ConfigFileError, OSError."""
    try:
        found = read_schedules(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise ConfigFileError([f"{path}: is no text in UTF-8"]) from None
    return tuple(one.model_copy(update={"config": (path.parent / one.config).absolute()}) for one in found)


def _wall(at: datetime) -> datetime:
    return at.replace(tzinfo=None, fold=0)


def _cron(cron: str, zone: str) -> CronTrigger:
    """APScheduler counts the week's days from Monday, cron from Sunday: they are named."""
    *fields, days = cron.split()
    named = re.sub(r"(?<![/\d])[0-7](?!\d)", lambda day: _DAYS[int(day[0])], days)
    minute, hour, day, month = fields
    kind = CronTrigger if hour.startswith("*") else _OnceAWallTime
    return kind(minute=minute, hour=hour, day=day, month=month, day_of_week=named, timezone=zone)
