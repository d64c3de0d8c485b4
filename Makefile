# Everything sets itself up: only Python 3.11 to 3.13 and make are needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# uv installs the 130 packages in seconds where pip takes minutes.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

# Peers have an environment of their own: their versions must not decide ours.
PEERS := .venv-peers

.PHONY: demo test test-crash check unit fuzz bench bench-peers bench-kill clean setup

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(INSTALL) --editable '.[demo,objectstore,postgres]' --group test --group lint
	touch $@

demo: setup
	$(BIN)/wtb demo

test: setup check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The fast part: no server, no Ray, no subprocess.
unit: setup
	$(BIN)/python -m pytest tests/unit tests/contracts

# Thousands of generated graphs, at random: fifty minutes at most, and the first difference ends it.
fuzz: setup
	WTB_FUZZ_EXAMPLES=5000 timeout 3000 $(BIN)/python -m pytest -x --timeout 2900 \
		tests/integration/test_fork_tree_property.py

# A fault at every system call of six operations, and all else that can be planted: needs strace.
# And 20 batches under a PostgreSQL that is stopped again and again.
test-crash: setup
	WTB_CRASH=all $(BIN)/python -m pytest tests/crash tests/integration/test_postgres_restarts.py \
		--timeout 3600 -o faulthandler_timeout=0

# kill -9 of the driver at 30 random moments of the demo, then the same command.
bench-kill: setup
	$(BIN)/python -m benchmarks.kill_demo

bench: setup
	$(BIN)/python -m benchmarks

bench-peers: setup $(PEERS)/.ready
	$(BIN)/python -m benchmarks.peers --peers $(PEERS)/bin/python

$(PEERS)/.ready: benchmarks/peers/requirements.txt | setup
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) wtb-demo .wtb
