"""A directory's ledger with everything in it that may stand in one, what is asked of it, and a `tallystick migrate --to` that dies at a given statement.

python moved.py fill DATA             make it, and print what it answers
python moved.py move DIE_AT … ARGUMENTS   the command; its pieces are small, and it kills at the statement of that number
"""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tallystick.attribution.spend import spend
from tallystick.ingest.store import Store

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from corrected import SINCE_NS, UNTIL_NS, book
from server import CLEAN

CALLS: Final = 1500
SMALL: Final = 1000
SMALLER: Final = 200
"""Rows of a piece, and of one where the move is to be killed: what goes on cuts otherwise than what it goes on from."""

TENANTS: Final = ("acme", "it's", 'a\\b "c"\n{x:String} %s', "größe")
REPRICED_AT: Final = datetime(2026, 11, 3, tzinfo=UTC)
AS_OF: Final = (REPRICED_AT - timedelta(days=1), REPRICED_AT + timedelta(days=1))

_FILL: Final = (
    # Calls of three months and four tenants, each started with another one; every tenth is unpriced.
    """INSERT INTO ledger (entry, calls, tenant, customer, feature, tags, provider, request_model, operation, input_tokens, cache_read_tokens,
        output_tokens, usage_source, started_at, duration_ns, price_id, cost_usd, trace_id, span_id, response_id, process, scope, entered_at)
    SELECT 'call', 1, {tenants:Array(String)}[1 + number % 4], concat('c', toString(number % 7)), 'chat', map('k', toString(number)), 'lab', 'lab-a',
        'chat', 1000, if(number % 3 = 0, NULL, 5), 1000, 'provider', toDateTime64('2026-08-30 00:00:00', 9, 'UTC') + toIntervalHour(intDiv(number, 2)), 1000,
        if(number % 10 = 0, '', 'p'), if(number % 10 = 0, NULL, toDecimal64(number, 12) / 1000000000000 + 0.006),
        toFixedString(unhex(leftPad(hex(number + 1), 32, '0')), 16), toFixedString(unhex(leftPad(hex(number + 1), 16, '0')), 8), '', 'p', 's',
        toDateTime64('2026-11-01 12:00:00', 3, 'UTC')
    FROM numbers({calls:UInt64})""",
    # Entries that are alike in every column: an amount in several parts.
    """INSERT INTO ledger (entry, calls, tenant, customer, usage_source, started_at, cost_usd, entered_at, reason, correction)
    SELECT 'allocation', 0, 'acme', 'c1', 'missing', '2026-10-01 00:00:00', 999999, '2026-11-02 00:00:00', 'overhead', 'a1' FROM numbers(5)""",
    """INSERT INTO corrections SELECT 'a1', 'made', 'allocation', 'overhead 2026-10', '2026-11-02 00:00:00', 'fin', 'overhead', '', '{}', 5, 4999995, ''""",
    """INSERT INTO reported_outcomes SELECT {tenants:Array(String)}[1 + number % 4], concat('o\\'', toString(number)), '2026-10-01 00:00:00', 'solved', 1,
        1.5, '', '', '', '', '', map(), '2026-10-01 00:00:01' FROM numbers(450)""",
    # Told again: the later one counts.
    """INSERT INTO reported_outcomes SELECT * REPLACE ('lost' AS outcome, entered_at + 1 AS entered_at) FROM reported_outcomes WHERE id < 'o\\'2'""",
    """INSERT INTO prices SELECT 'b', 'lab', 'lab-a', '', '', '2026-01-01 00:00:00', ['p'], arrayMap(x -> toDecimal128(x, 24), range(10)), [], [],
        'k', 's', '', ''""",
    """INSERT INTO flows (source, receiver, number, received_at, tenant, service, spans, calls, entered)
    SELECT 'http', 'r', number, now64(3) - toIntervalHour(number % 30), {tenants:Array(String)}[1 + number % 4], 's', 3, 2, 2 FROM numbers(300)""",
)  # fmt: skip


def answers(store: Store) -> list[Any]:
    """What a ledger says, by text that is equal only where it is to the last decimal."""
    from tallystick.server.focus_api import asked, found_days

    client = store.client()
    told: list[Any] = []
    for dimensions in (["tenant", "customer"], ["day"], []):
        for as_of in (None, *AS_OF):
            query = spend(dimensions, SINCE_NS, UNTIL_NS, as_of_ns=None if as_of is None else int(as_of.timestamp()) * 10**9)
            told.append(sorted(map(str, client.query(query.text, parameters=query.params).result_rows)))
    for sql in (
        "SELECT * FROM charges", "SELECT * FROM outcomes", "SELECT * FROM prices FINAL", "SELECT * FROM corrections FINAL",
        "SELECT * FROM flows FINAL", "SELECT count() FROM ledger GROUP BY tenant, toYYYYMM(started_at)",
    ):  # fmt: skip
        told.append(sorted(map(str, client.query(sql).result_rows)))
    told.append(found_days(store, None, asked("1.2", "2026-08-01", "2026-12-01"), False).model_dump_json())
    return told


def fill(data: Path) -> None:
    from tallystick.attribution.priced_calls import Which
    from tallystick.attribution.reprice import reprice
    from tallystick.ingest.migrate import migrate
    from tallystick.ingest.store import open_store
    from tallystick.ingest.turns import LocalTurns
    from tallystick.server.corrections import open_corrections

    with open_store(data) as store:
        migrate(store, 0)
        client = store.client()
        tenants = [name.replace("\\", "\\\\").replace("\n", "\\n") for name in TENANTS]
        for statement in _FILL:
            client.command(statement, parameters={"tenants": tenants, "calls": CALLS})
        corrections = open_corrections(store, LocalTurns(), lambda: REPRICED_AT)
        which = Which(SINCE_NS, UNTIL_NS, customer="c3")
        reprice(corrections, book({"lab-a": (Decimal(7), Decimal(11))}), which, reason="wrong price", author="")
        print(json.dumps(answers(store)))


def make(data: Path) -> list[Any]:
    """Fill a directory in a process of its own; what it answers."""
    done = subprocess.run(
        [sys.executable, __file__, "fill", str(data)], capture_output=True, text=True, env=CLEAN, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    return told


def move(
    *arguments: str, env: dict[str, str], die_at: int = 0, after: bool = False, victim: int = 0
) -> "subprocess.CompletedProcess[str]":
    """`tallystick migrate ARGUMENTS` with small pieces. At statement `die_at` to the server, before or after it, it kills itself, or process group `victim`."""
    command = [sys.executable, __file__, "move", str(die_at), str(int(after)), str(victim), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**CLEAN, **env}, timeout=180, check=False)


def dying(die_at: int, after: bool, victim: int) -> None:
    from clickhouse_connect.driver._backend.http_sync import HttpSyncBackend

    ask, asked = HttpSyncBackend.request, 0

    def request(self: Any, *rest: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == die_at and not after:
            _kill(victim)
        answer = ask(self, *rest, **options)
        if asked == die_at and after:
            _kill(victim)
        return answer

    HttpSyncBackend.request = request  # type: ignore[method-assign]


def _kill(victim: int) -> None:
    if victim:
        os.killpg(victim, signal.SIGKILL)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(Path(sys.argv[2]))
    else:
        from functools import partial

        from tallystick.cli import main
        from tallystick.ingest.pieces import pieces
        from tallystick.server import moving

        die_at, after, victim = map(int, sys.argv[2:5])
        moving.__dict__["pieces"] = partial(pieces, rows=SMALLER if die_at else SMALL)
        if die_at:
            dying(die_at, bool(after), victim)
        sys.argv = ["tallystick", "migrate", *sys.argv[5:]]
        main()
