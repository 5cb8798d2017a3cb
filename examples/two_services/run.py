"""Both services, a provider and a tallystick server on loopback; requests of three customers; and what each of them cost."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

import httpx

from tallystick import Client
from tallystick.testing import ProviderServer

HERE = Path(__file__).parent
WAIT_S = 60.0

REQUESTS = {
    ("acme", "chat"): 5,
    ("acme", "summary"): 1,
    ("globex", "chat"): 2,
    ("globex", "summary"): 3,
    ("initech", "chat"): 1,
}
USD_A_MILLION = {"chat": (Decimal("0.15"), Decimal("0.60")), "summary": (Decimal("2.50"), Decimal("10.00"))}
"""Input and output tokens of gpt-4o-mini, which answers in chats, and of gpt-4o, which summarises."""

SPEND = """
SELECT customer, feature, any(tags['plan']) AS plan, count() AS calls, sum(input_tokens) AS input, sum(output_tokens) AS output,
       sum(cost_usd) AS usd
FROM charges GROUP BY customer, feature ORDER BY customer, feature
"""


def main() -> None:
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="two-services-")))
        provider = stack.enter_context(ProviderServer())
        ledger = stack.enter_context(tallystick_server(data))
        common = {"TALLYSTICK_URL": ledger, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        answers = stack.enter_context(service("answers", data, common | {"MODEL_URL": provider.openai_url}))
        rules = {"TALLYSTICK_SCOPE_RULES": str(HERE / "rules.toml"), "ANSWERS_URL": answers}
        gateway = stack.enter_context(service("gateway", data, common | rules))
        ask(gateway)
        assert len(provider.calls) == sum(REQUESTS.values())
        assert not any("tallystick" in repr(call.headers) for call in provider.calls), "the provider was told whom a call is for"
        show_and_check(ledger)


def ask(gateway: str) -> None:
    with httpx.Client(base_url=gateway, trust_env=False) as client:
        for (customer, feature), count in REQUESTS.items():
            for _ in range(count):
                body = {"question" if feature == "chat" else "text": "What does it cost?"}
                client.post(f"/v1/{feature}", json=body, headers=credentials(customer)).raise_for_status()


def credentials(customer: str) -> dict[str, str]:
    """Two customers come with a token, one with a header."""
    if customer == "initech":
        return {"x-customer": customer}
    claims = {"org": {"id": customer}, "plan": "p2" if customer == "acme" else "p1"}
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims))
    return {"authorization": f"Bearer {head}.{body}.not-verified-here"}


def show_and_check(ledger: str) -> None:
    rows = []
    with Client(ledger) as client:
        deadline = time.monotonic() + WAIT_S
        while sum(row["calls"] for row in rows) < sum(REQUESTS.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
            rows = client.sql(SPEND).dicts()
    print(f"{'customer':10} {'feature':10} {'plan':6} {'calls':>5} {'input':>7} {'output':>7} {'USD':>12}")
    for row in rows:
        print("{customer:10} {feature:10} {plan:6} {calls:5} {input:7} {output:7} {usd:12.8f}".format(**row))
    assert {(row["customer"], row["feature"]): row["calls"] for row in rows} == REQUESTS
    for row in rows:
        per_input, per_output = USD_A_MILLION[row["feature"]]
        assert row["usd"] == (row["input"] * per_input + row["output"] * per_output) / 1_000_000, row
        assert row["plan"] == {"acme": "pro", "globex": "free", "initech": ""}[row["customer"]]
    for customer in dict.fromkeys(row["customer"] for row in rows):
        print(f"{customer}: {sum(row['usd'] for row in rows if row['customer'] == customer):.8f} USD")
    print("checked: every call is charged to who asked for it, to the last decimal")


@contextmanager
def tallystick_server(data: Path) -> Iterator[str]:
    """The URL of a server with an empty ledger."""
    command = [sys.executable, "-m", "tallystick.cli", "up", "--data", str(data / "ledger"), "--port", "0", "--grpc-port", "0"]
    with running(command, data / "tallystick.log") as log:
        yield until(lambda: "".join(re.findall(r"^ready (\S+)", log.read_text(), re.MULTILINE)), log)


@contextmanager
def service(name: str, data: Path, environ: dict[str, str]) -> Iterator[str]:
    """The URL of `name`.py, served by uvicorn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", f"{name}:app", "--app-dir", str(HERE), "--port", str(port)]
    url = f"http://127.0.0.1:{port}"

    def answering() -> str:
        try:
            httpx.get(f"{url}/openapi.json", trust_env=False)
        except httpx.TransportError:
            return ""
        return url

    with running(command, data / f"{name}.log", environ | {"OTEL_SERVICE_NAME": name}) as log:
        yield until(answering, log)


@contextmanager
def running(command: list[str], log: Path, environ: dict[str, str] | None = None) -> Iterator[Path]:
    """A process, stopped at the end. Settings of this shell's would make the example another one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYSTICK_", "OTEL_"))}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=clean | (environ or {}))
    try:
        yield log
    finally:
        process.terminate()
        process.wait(WAIT_S)


def until(ready: Callable[[], str], log: Path) -> str:
    deadline = time.monotonic() + WAIT_S
    while not (answer := ready()):
        if time.monotonic() > deadline:
            sys.exit(f"didn't start:\n{log.read_text()}")
        time.sleep(0.05)
    return answer


if __name__ == "__main__":
    main()
