# make demo   the main job on the embedded model, from nothing: venv, packages, model, run
# make test   all tests, from nothing
# make check  lint, types and architecture
PYTHON ?= python3
BIN := .venv/bin

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("cai needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: demo test fast check
demo: .venv/ready
	$(BIN)/cai run demo

test: .venv/ready
	$(BIN)/pytest -q -n 2 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow -n 2 --dist loadscope

fast: .venv/ready
	$(BIN)/pytest -q

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -s tests/test_layers.py
