"""`prices show` explains what the ledger was priced by, even when that is not what the present prices say."""

import json
import re
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from otlp import request, span, trace_hex
from server import CLEAN, COMMAND, Server, free_port

OWN = {"gen_ai.provider.name": "vllm", "gen_ai.request.model": "acme/7b", "gen_ai.response.model": "acme/7b"}
PRICES = """
prices:
  models:
    - model: "acme/7b"
      from: 2026-02-03
      source: contract 17
      per_million_tokens: {{input: {price}, output: 8.25}}
"""


def prices(tmp_path: Path, price: str) -> Path:
    file = tmp_path / f"prices-{price}.yaml"
    file.write_text(PRICES.format(price=price))
    return file


def tallystick(*args: str, key: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=60, env={**CLEAN, "TALLYSTICK_KEY": key}, check=False
    )


def shown(*args: str, key: str = "") -> dict[str, Any]:
    done = tallystick("prices", "show", *args, "--json", key=key)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    return dict(row)


def charge(server: Server, name: str, key: str, attributes: dict[str, Any] | None = None) -> str:
    """The price id of a call that is sent now."""
    assert server.post(request(span(name, attributes=attributes)), key).status_code == 200
    (row,) = server.sql(f"SELECT price_id FROM charges WHERE trace_id = '{trace_hex(name)}'", key)
    return str(row["price_id"])


def test_a_price_of_an_older_book_is_explained(tmp_path: Path) -> None:
    old, new = prices(tmp_path, "2"), prices(tmp_path, "7")
    data = tmp_path / "data"
    with Server(data, env={"TALLYSTICK_CONFIG": str(old)}) as server:
        acme, globex, ops = server.key("acme"), server.key("globex"), server.key("ops", operator=True)
        old_id = charge(server, "before", acme, OWN)
        server.stop()
    with Server(data, env={"TALLYSTICK_CONFIG": str(new)}) as server:
        new_id = charge(server, "after", acme, OWN)
        public_id = charge(server, "public", globex)
        assert old_id != new_id
        at = ("--url", server.url)
        by_the_book = shown(old_id, "--config", str(old), "--url", "http://127.0.0.1:9")
        assert (by_the_book["input_usd_per_million"], by_the_book["note"]) == ("2", "contract 17")
        # The present prices don't have it any more: the ledger has.
        for here in (at, ("--config", str(new), *at), ("--data", str(data))):
            assert shown(old_id, *here) == by_the_book
        assert Decimal(shown(new_id, *at)["input_usd_per_million"]) == 7
        table = tallystick("prices", "show", old_id, *at)
        assert re.search(r"^ *output usd per million +8\.25 *$", table.stdout, re.MULTILINE), table.stdout + table.stderr

        # Whose prices they are.
        assert shown(old_id, *at, key=acme) == shown(old_id, *at, key=ops) == by_the_book
        refused = tallystick("prices", "show", old_id, *at, key=globex)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "neither the installed prices nor the ledger hold" in refused.stderr
        assert "its own charges only" in refused.stderr
        assert price(server, public_id, globex).status_code == 200
        for id_, key in ((old_id, globex), (new_id, globex), (public_id, acme), ("", acme), ("no,such", ops)):
            answer = price(server, id_, key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_price")
        assert price(server, old_id, "ts_nobody").status_code == 401
        assert server.http.get("/v1/price").status_code == 422
        server.stop()
    # Without a server, from the directory.
    assert shown(old_id, "--data", str(data)) == by_the_book
    unknown = tallystick("prices", "show", "no,such,price", "--data", str(data))
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "neither the installed prices nor the ledger hold 'no,such,price'" in unknown.stderr


def price(server: Server, price_id: str, key: str) -> httpx.Response:
    return server.http.get("/v1/price", params={"id": price_id}, headers={"authorization": f"Bearer {key}"})


def test_the_ledger_says_what_the_book_says(server: Server) -> None:
    key = server.key("prices-show")
    models = {"openai": "gpt-4o-audio-preview", "deepseek": "deepseek-v4-pro", "perplexity": "sonar-pro"}
    for provider, model in models.items():
        names = {"gen_ai.provider.name": provider, "gen_ai.request.model": model, "gen_ai.response.model": model}
        price_id = charge(server, f"prices-show-{provider}", key, names)
        by_the_book = shown(price_id, "--url", "http://127.0.0.1:9")
        by_the_ledger = price(server, price_id, key).json()
        assert by_the_ledger.pop("book")
        assert list(by_the_ledger) == list(by_the_book)
        for name, value in by_the_book.items():
            if "usd" in name:
                assert Decimal(by_the_ledger[name]) == Decimal(value), name
            elif name != "valid_from":
                assert by_the_ledger[name] == value, name


def test_without_a_ledger_that_is_said_and_where_to_name_one(tmp_path: Path) -> None:
    done = tallystick(
        "prices", "show", "no,such,price", "--data", str(tmp_path / "none"), "--url", f"http://127.0.0.1:{free_port()}"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no server answers at" in done.stderr
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [*COMMAND, "prices", "show", "no,such,price"],
        capture_output=True,
        text=True,
        timeout=60,
        env=CLEAN,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "the installed prices hold no 'no,such,price', and no ledger: tallystick-data doesn't exist" in done.stderr
    assert "--data or --url" in done.stderr
