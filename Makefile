PYTHON ?= python3
BIN := .venv/bin
SHARED ?= ../shared/data

# As many test processes as there are cores; an idle one takes tests of a busy one.
PYTEST := $(BIN)/pytest -n logical --dist worksteal

.PHONY: setup demo test check exhaustive lint gpu-check clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[torch,openvino,dev]'
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py $(SHARED) build

test: setup
	$(PYTEST) -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST)

# The whole sets of which the other tests try samples, every night; the result goes to tests/exhaustive.json.
exhaustive: setup
	$(PYTEST) -m exhaustive --record tests/exhaustive.json

# On a machine with a GPU: the networks at hand as engines, and benchmarks/gpu-NAME.json.
gpu-check: setup
	$(BIN)/python scripts/gpu_check.py run build/gpu-check

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
