"""The real server of llama.cpp (package xllamacpp), in this process: python -m tallystick.probes.engines.llamacpp_server --model FILE …

Its API key comes from LLAMA_API_KEY, as llama-server's does: what stands on a command line, others can read.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence

from xllamacpp.xllamacpp import CommonParams, Server

from tallystick.probes.engines.llamacpp_options import BadOption, set_option


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed. Exits with 2 where an option is wrong, 1 where the model can't be loaded."""
    parser = argparse.ArgumentParser(prog="llamacpp_server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args(arguments)
    params = CommonParams()
    params.model.path, params.hostnames, params.port = asked.model, [asked.host], asked.port
    # As llama-server has them by default: four requests at once, which share one cache.
    params.n_parallel, params.kv_unified = 4, True
    params.endpoint_metrics = params.endpoint_slots = True
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    try:
        for option in asked.option:
            name, _, value = option.partition("=")
            set_option(params, name, value)
    except BadOption as error:
        parser.error(str(error))
    try:
        server = Server(params)
    except Exception as error:
        sys.exit(f"llama.cpp's server does not start: {error}")
    print("listening on", server.listening_address, flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
