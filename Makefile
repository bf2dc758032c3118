# Two targets do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check format clean

demo: $(VENV)/ready  ## the main job on the embedded, synthetic set: a table and a figure
	$(BIN)/python jobs/localize.py conf/demo.toml

test: check  ## all checks and tests
	$(BIN)/python -m pytest

check: $(VENV)/ready  ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sensloc needs Python >= 3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs data/scenes
