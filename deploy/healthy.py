#!/usr/bin/env python3
"""healthy URL: exits 0 where it answers 200 within four seconds, else 1 with what it said. What a container's health check runs: slim images have no curl."""

import sys
import urllib.error
import urllib.request

# Not by a proxy that the environment names: it is this container that is asked.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=4) as answer:
        sys.exit(answer.status != 200)
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read(500).decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{error}")
