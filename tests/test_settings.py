"""The table of settings: one source of flags, variables and documentation."""

from dataclasses import fields
from pathlib import Path

import pytest

from tallystick.settings import TABLE, BadSetting, Settings, markdown, setting

ROOT = Path(__file__).parent.parent


def test_every_row_is_a_field_and_has_what_people_need() -> None:
    assert [row.name for row in TABLE] == [field.name for field in fields(Settings)]
    for row in TABLE:
        assert row.env == f"TALLYSTICK_{row.name.upper()}" or row.name in ("max_request_spans",)
        assert row.doc.endswith(".")
        assert row.default is None or isinstance(row.default, row.kind)


def test_names_that_others_rely_on() -> None:
    assert {row.env for row in TABLE} >= {
        "TALLYSTICK_URL",
        "TALLYSTICK_KEY",
        "TALLYSTICK_DATA",
        "TALLYSTICK_HOST",
        "TALLYSTICK_PORT",
        "TALLYSTICK_GRPC_PORT",
        "TALLYSTICK_CONFIG",
        "TALLYSTICK_RETENTION_DAYS",
    }
    assert (setting("port").default, setting("grpc_port").default, setting("host").default) == (4318, 4317, "127.0.0.1")


def test_the_documentation_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_flags_win_over_variables_and_variables_over_defaults() -> None:
    environ = {"TALLYSTICK_PORT": "5000", "TALLYSTICK_HOST": "::1", "TALLYSTICK_GRPC_PORT": "0", "TALLYSTICK_CONFIG": "  "}
    settings = Settings.load(environ, port=6000, host=None)
    assert (settings.port, settings.host, settings.grpc_port, settings.config) == (6000, "::1", 0, None)
    assert settings.data == Path("tallystick-data")
    # A flag may be 0: that is given, and not the same as nothing.
    assert Settings.load({"TALLYSTICK_GRPC_PORT": "4000"}, grpc_port=0).grpc_port == 0


def test_a_directory_as_a_flag_outweighs_a_server_of_the_environment() -> None:
    environ = {"TALLYSTICK_URL": "http://far:4318", "TALLYSTICK_DATA": "/near"}
    assert Settings.load(environ).url == "http://far:4318"
    assert Settings.load(environ, data=Path("/here")).url is None
    both = Settings.load(environ, data=Path("/here"), url="http://there")
    assert (both.url, both.data) == ("http://there", Path("/here"))


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("TALLYSTICK_PORT", "http", "TALLYSTICK_PORT is no whole number: 'http'"),
        ("TALLYSTICK_PORT", "43.18", "TALLYSTICK_PORT is no whole number: '43.18'"),
        ("TALLYSTICK_PORT", "-1", "TALLYSTICK_PORT is negative: '-1'"),
        ("TALLYSTICK_RETENTION_DAYS", "ever", "TALLYSTICK_RETENTION_DAYS is no whole number: 'ever'"),
        ("TALLYSTICK_URL", "localhost:4318", "TALLYSTICK_URL starts with neither http:// nor https://: 'localhost:4318'"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(variable: str, text: str, said: str) -> None:
    with pytest.raises(BadSetting) as told:
        Settings.load({variable: text})
    assert str(told.value) == said


def test_the_key_is_in_no_representation() -> None:
    settings = Settings.load({"TALLYSTICK_KEY": "ts_very_secret"})
    assert settings.key == "ts_very_secret"
    assert "secret" not in repr(settings)
