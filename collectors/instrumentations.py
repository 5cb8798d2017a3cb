"""Turns on the instrumentation of each client library, once the application imports that library."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import Any, Final, Literal

import wrapt

from tallystick.collectors.failures import contained, report
from tallystick.collectors.libraries import LIBRARIES, UNCHECKED, WITHOUT_CONTENT, Library

NATIVE: Final = "native"
"""Chosen where the library emits spans by itself."""

OWN: Final = "tallystick"
"""Chosen where the collector makes the spans of a library's calls."""

UNDERNEATH: Final = "underneath"
"""Chosen where a library's calls go through others that are metered."""

State = Literal["on", "by the application", "native", "failed"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What one client library is seen by."""

    library: str
    version: str | None
    """Of the library; None where it isn't installed."""
    instrumentation: str | None
    """Distribution of the instrumentation, `native`, `tallystick`, `underneath`, or None."""
    reason: str
    """Why this one, or why none."""
    alternatives: tuple[str, ...] = ()
    """Further installed instrumentations, in the order in which they are tried if the chosen one fails."""
    tested: bool | None = None
    """Whether docs/clients.md has this version; None where it doesn't have the library."""


def choose(
    library: Library,
    library_version: str | None,
    installed: Mapping[str, str],
    left_off: frozenset[str],
    environ: Mapping[str, str],
) -> Choice:
    """What to turn on for `library`.

    `installed` maps the distribution of each installed instrumentation to the name of its entry point, by which
    `left_off` (`OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`) excludes it.
    """

    def choice(instrumentation: str | None, reason: str, alternatives: tuple[str, ...] = ()) -> Choice:
        of = library_version or ""
        tested = any(f"{of}.".startswith(f"{release}.") for release in library.tested) if library.tested else None
        return Choice(library.distribution, library_version, instrumentation, reason, alternatives, tested)

    if library_version is None:
        return choice(None, "the library isn't installed")
    native = library.native
    if native and environ.get(native.off_switch, "").lower() != "false" and _release(library_version) >= native.since:
        return choice(NATIVE, "the library emits its own spans")
    present = [name for name in library.instrumentations if name in installed]
    allowed = tuple(name for name in present if not left_off & {"*", installed[name]})
    if allowed:
        return choice(allowed[0], "the preferred one that is installed", allowed[1:])
    if library.underneath:
        return choice(UNDERNEATH, "its calls go through client libraries, which are metered one by one")
    if library.own and not present and not left_off & {"*", library.distribution}:
        return choice(OWN, "the collector makes the spans")
    left = present or library.own
    lacking = "" if left else f"no instrumentation is installed: pip install {library.instrumentations[0]}"
    return choice(None, lacking or "left off by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")


def installed_instrumentations(environ: Mapping[str, str], left_off: frozenset[str]) -> list[Choice]:
    """For each known client library, what this environment would see it by. Imports none of them."""
    installed = {name: point.name for name, point in _entry_points().items()}
    return [choose(library, _version(library.distribution), installed, left_off, environ) for library in LIBRARIES]


class Instrumentations:
    """Waits for the imports of the libraries, and knows what came of each."""

    def __init__(self, left_off: frozenset[str]) -> None:
        self._left_off = left_off
        self._points = _entry_points()
        self._ours: dict[type, tuple[str, str]] = {}
        """Instrumentor that we turned on → its library and distribution."""
        self._starting: set[type] = set()
        """Instrumentors that are being turned on, by whomever."""
        self.states: dict[str, tuple[str, State]] = {}
        """Library → what it is seen by, and how that came, for each library imported so far."""

    def watch(self) -> None:
        """Imports nothing: an instrumentation, which imports its library, is loaded when the application does that."""
        wrapt.register_post_import_hook(self._watch_instrumentors, "opentelemetry.instrumentation.instrumentor")
        for library in LIBRARIES:
            modules = self._modules(library)
            if library.native or library.own or modules:
                for module in (library.module, *modules):
                    wrapt.register_post_import_hook(self._hook(library), module)

    def _modules(self, library: Library) -> list[str]:
        """Where the installed instrumentations of `library` are defined."""
        return [self._points[name].module for name in library.known if name in self._points]

    def _hook(self, library: Library) -> Callable[[ModuleType], None]:
        def imported(module: ModuleType) -> None:
            # Runs inside the application's import statement.
            try:
                # An instrumentation mostly imports its library, and can be turned on only once its own import has ended.
                half = any(_is_half_imported(name) for name in self._modules(library) if name != module.__name__)
                if library.module in sys.modules and library.distribution not in self.states and not half:
                    self._turn_on(library)
            except Exception as error:
                report(f"instrumenting {library.distribution}", error)

        return imported

    def _turn_on(self, library: Library) -> None:
        for name in library.known:
            if name in self._points and self._is_on(self._points[name]):
                self.states[library.distribution] = (name, "by the application")
                return
        installed = {name: point.name for name, point in self._points.items()}
        chosen = choose(library, _version(library.distribution), installed, self._left_off, os.environ)
        if chosen.instrumentation == NATIVE:
            self.states[library.distribution] = (NATIVE, "native")
        elif chosen.instrumentation == OWN:
            self.states[library.distribution] = (OWN, "on")
        elif chosen.instrumentation is not None and chosen.instrumentation != UNDERNEATH:
            self._first_that_works(library, (chosen.instrumentation, *chosen.alternatives))

    def _first_that_works(self, library: Library, names: Sequence[str]) -> None:
        from opentelemetry.instrumentation.dependencies import DependencyConflictError

        for name in names:
            self.states[library.distribution] = (name, "failed")
            try:
                _without_content(name)
                instrumentor = self._points[name].load()()
                instrumentor.instrument(raise_exception_on_conflict=True, skip_dep_check=name in UNCHECKED)
                self._ours[type(instrumentor)] = (library.distribution, name)
            except DependencyConflictError as error:
                # Said by the instrumentation itself: it is for another version of the library.
                if not library.own:
                    report(f"turning on {name}", error)
            except Exception as error:
                report(f"turning on {name}", error)
            else:
                self.states[library.distribution] = (name, "on")
                return
        if library.own:
            self.states[library.distribution] = (OWN, "on")

    def _is_on(self, point: EntryPoint) -> bool:
        """Whether the application has turned on this instrumentation itself, or is about to. Imports nothing."""
        instrumentor: Any = getattr(sys.modules.get(point.module), point.attr, None)
        if instrumentor is None:
            return False
        return instrumentor in self._starting or bool(instrumentor().is_instrumented_by_opentelemetry)

    def _watch_instrumentors(self, _: object) -> None:
        wrapt.wrap_function_wrapper("opentelemetry.instrumentation.instrumentor", "BaseInstrumentor.instrument", self._instrument)

    def _instrument(
        self, instrument: Callable[..., Any], instrumentor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Around `instrument()` of all: what the application turns on itself, with settings of its own perhaps, is no longer ours."""
        kind = type(instrumentor)
        if kind in self._ours:
            library, name = self._ours.pop(kind)
            with contained("giving way to the application's instrumentation"):
                instrumentor.uninstrument()
                self.states[library] = (name, "by the application")
        self._make_no_spans_beside(kind)
        self._starting.add(kind)
        try:
            return instrument(*args, **kwargs)
        finally:
            self._starting.discard(kind)

    def makes_spans_of(self, distribution: str) -> bool:
        """Whether the collector does so itself."""
        return self.states.get(distribution) == (OWN, "on")

    def _make_no_spans_beside(self, instrumentor: type) -> None:
        for library in LIBRARIES:
            if self.makes_spans_of(library.distribution):
                for name in library.known:
                    point = self._points.get(name)
                    if point is not None and getattr(sys.modules.get(point.module), point.attr, None) is instrumentor:
                        self.states[library.distribution] = (name, "by the application")


def _entry_points() -> dict[str, EntryPoint]:
    """The instrumentors of known libraries, by distribution."""
    known = {name for library in LIBRARIES for name in library.known}
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group="opentelemetry_instrumentor"):
        distribution = _normal(point.dist.name) if point.dist else ""
        if distribution in known:
            found.setdefault(distribution, point)
    return found


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _release(of: str) -> tuple[int, ...]:
    """(major, minor) of a version, (0,) where it begins with no number."""
    leading: Iterable[str] = of.split(".")[:2]
    return tuple(int(part) for part in leading if part.isdigit()) or (0,)


def _is_half_imported(module: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(module), "__spec__", None), "_initializing", False))


def _without_content(distribution: str) -> None:
    for prefix, variables in WITHOUT_CONTENT.items():
        if distribution.startswith(prefix):
            for name, value in variables.items():
                os.environ.setdefault(name, value)
