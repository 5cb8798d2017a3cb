"""A real PostgreSQL on 127.0.0.1, for the time of a test run."""

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from server import free_port


class Postgres:
    """Without a password, in a directory that goes with it. It may be stopped and started; `url` stays."""

    def __init__(self) -> None:
        self._bin = _binaries()
        # Not where an open store has temporary files of its process put, which others can't enter.
        self._home = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        self._data = self._home / "data"
        # It refuses to run as root.
        self._user = None if os.getuid() else _unprivileged()
        if self._user is not None:
            os.chown(self._home, self._user.pw_uid, self._user.pw_gid)
        self._port = free_port()
        self._databases = 0
        self._run(
            "initdb",
            "--pgdata",
            str(self._data),
            "--auth",
            "trust",
            "--username",
            "tallystick",
            "--no-sync",
            "--encoding",
            "UTF8",
        )
        self.start()

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._home} -c fsync=off -c max_connections=200"
        log = str(self._home / "server.log")
        self._run("pg_ctl", "start", "--wait", "--pgdata", str(self._data), "--log", log, "--options", options)

    def stop(self) -> None:
        """At once, as a crash would."""
        self._run("pg_ctl", "stop", "--wait", "--pgdata", str(self._data), "--mode", "immediate")

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._home)

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"alerts_{self._databases}"
        with psycopg.connect(
            host="127.0.0.1", port=self._port, user="tallystick", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return f"postgresql+psycopg://tallystick@127.0.0.1:{self._port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        with (self._home / "commands.log").open("a+") as log:
            done = subprocess.run(
                [str(self._bin / program), *arguments],
                check=False,
                cwd=self._home,
                # Sessions are in a zone that isn't UTC, as a server's own may be.
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
                timeout=120,
            )
            log.seek(0)
            assert done.returncode == 0, f"{program}: {log.read()}"


@cache
def postgres() -> Postgres:
    """One for all tests of this run. Skips where it isn't installed, except in continuous integration, which installs it."""
    server = Postgres()
    atexit.register(server.remove)
    return server


def fresh_url(kind: str, directory: Path) -> str:
    """An empty ledger's URL, `sqlite` or `postgresql`."""
    return f"sqlite:///{directory / 'alerts.db'}" if kind == "sqlite" else postgres().fresh()


def _binaries() -> Path:
    """Where initdb is: Debian doesn't have it on the PATH."""
    found = [Path(on_path).parent] if (on_path := shutil.which("initdb")) else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for directory in found:
        if (directory / "initdb").exists():
            return directory
    if os.environ.get("CI") == "true":
        raise RuntimeError("PostgreSQL isn't installed: .ci/run does it")
    pytest.skip("PostgreSQL isn't installed (Debian: apt-get install postgresql)")


def _unprivileged() -> pwd.struct_passwd:
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]
