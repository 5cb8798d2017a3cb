"""An engine that records when requests come, and answers at once: arrivals as the engine sees them, whoever sends.

python -m peers.engine FILE prints its URL.
"""

import json
import socket
import sys
import time
from pathlib import Path

from aiohttp import web

_CHUNK = b'data: {"id":"c","object":"text_completion","model":"still","choices":[{"index":0,"text":" a"}]}\n\n'


class Recording:
    """FILE has a line a request for a completion: time.monotonic() when its headers were there."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="ascii", buffering=1)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        self._file.write(f"{time.monotonic()!r}\n")
        asked = json.loads(await request.read())
        tokens = int(asked.get("max_tokens") or 1)
        prompt = asked["prompt"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_CHUNK * tokens)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": tokens, "total_tokens": len(prompt) + tokens}
        end = {"id": "c", "object": "text_completion", "model": "still", "choices": [], "usage": usage}
        await response.write(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
        return response


async def models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "still", "object": "model", "max_model_len": 4096}]})


async def health(request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/v1/models", models),
            web.post("/v1/completions", Recording(Path(sys.argv[1])).completions),
        ]
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        web.run_app(app, sock=listening, print=None)


if __name__ == "__main__":
    main()
