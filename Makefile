# Everything happens in .venv; nothing outside this directory is touched.
PYTHON ?= python3
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench docs clients clients-lock probe-engines kafka compose-check image-lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed  ## make .venv with everything in it (done again only when pyproject.toml changes)

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tallystick needs Python 3.11 or later, $(PYTHON) is older: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x .venv/bin/uv || { $(PYTHON) -m venv .venv && $(PY) -m pip install --quiet --disable-pip-version-check uv; }
	.venv/bin/uv pip install --quiet --python $(PY) --editable '.[dev]'
	@touch $@

demo: setup  ## real traffic through a server of its own, and what it cost
	@.venv/bin/tallystick demo

test: lint  ## all checks and all tests
	$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup  ## ruff, mypy and pyright
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pyright --pythonpath $(PY)

kafka:  ## a Kafka broker on 127.0.0.1:9092 for trying things out (Java, Maven)
	@deploy/kafka/run.sh .kafka/data 9092

clickhouse:  ## a ClickHouse server on 127.0.0.1:8123 for trying things out (npm, once)
	@deploy/clickhouse/run.sh .clickhouse/data 8123 9000

bench: setup  ## the benchmarks, which print ratios (beside other load tools: benchmarks/probe_peers.py, 11 GB once installed)
	@set -e; for benchmark in $(filter-out benchmarks/probe_peers.py benchmarks/probe_vllm.py,$(wildcard benchmarks/*.py)); do echo "== $$benchmark"; $(PY) $$benchmark; done

docs: setup  ## write the parts of docs/ that are made from the code
	$(PY) -m tallystick.settings
	$(PY) -m tallystick.api_docs docs/api.md
	$(PY) -m tallystick.data_dictionary docs/charges.md
	$(PY) -m tallystick.question_docs docs/questions.md
	$(PY) -m tallystick.focus_docs docs/focus.md
	$(PY) -m tallystick.metrics_docs docs/metrics.md

clients: setup  ## write docs/clients.md: every client, run against a real server
	cd tests && ../$(PY) -m clients.page

clients-lock: setup  ## resolve the environments of the clients anew
	cd tests && ../$(PY) -m clients.environment

probe-engines: setup  ## real vLLM and transformers serve on the CPU, probed (2.9 GB to get, once)
	@python=$$(deploy/engines/environment.sh) && TALLYSTICK_PROBE_ENGINES=$$python $(PY) -m pytest -s tests/test_probe_slow.py

compose-check: setup  ## docker-compose.yml: read by compose itself (made from its Go module where none is installed), and its commands run
	@docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || test -x .compose/docker-compose || deploy/compose.sh
	$(PY) -m pytest tests/test_compose.py tests/test_compose_commands.py

image-lock: setup  ## resolve anew what the container image installs
	@{ echo "# What the image installs, made by \`make image-lock\` from pyproject.toml's extras server, kafka, postgres and tokens."; \
		.venv/bin/uv pip compile pyproject.toml --extra server --extra kafka --extra postgres --extra tokens --python-version 3.13 --universal \
			--quiet --no-annotate --no-header; } >deploy/requirements.new && mv deploy/requirements.new deploy/requirements.txt

clean:  ## remove caches and builds; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
