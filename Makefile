# make demo   sets up and runs the whole story on a small sandbox world
# make test   sets up and passes the tests
# make setup  only sets up: Python 3.11+ with venv is all that must be there
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint setup clean

demo: setup
	$(BIN)/noisyactions demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

test-slow: setup
	$(BIN)/python -m pytest -q -m "slow or cluster or ceph or browser"

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv demo
