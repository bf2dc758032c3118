# On a fresh machine with Python >= 3.11: `make demo` and `make test` do all that they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo bench bench-all test test-all check docs format audit clean

demo: $(VENV)/ready  ## the main job on the embedded, synthetic set: a table and a figure
	$(BIN)/sensloc run conf/demo.toml

bench: demo  ## what takes ten minutes to measure, beside other hands' ways: tables, and JSON in runs/bench
	$(BIN)/python -m benchmarks.gradient --rounds 3
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.fit --rounds 2
	$(BIN)/python -m benchmarks.parts
	$(BIN)/python -m benchmarks.pipeline conf/demo.toml --images 3000
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.latency runs/demo data/scenes
	rm -rf runs/bench/storage
	$(BIN)/python -m benchmarks.storage conf/demo.toml --output runs/bench/storage

bench-all: bench  ## more networks, larger fits and longer runs too: an hour
	$(BIN)/python -m benchmarks.gradient --all --output runs/bench/gradient-all.json
	$(BIN)/python -m benchmarks.fit --all --output runs/bench/fit-all.json
	$(BIN)/python -m benchmarks.pipeline conf/demo.toml --images 300 --images 3000 --images 30000 --set dataset.count=30000 --output runs/bench/pipeline-all.json

test: check  ## all checks and tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

test-all: check  ## the long ones too: 25 seeds of chaos and ten minutes of hostile input, some hours
	SENSLOC_FUZZ_SECONDS=600 $(BIN)/python -m pytest -m ""

check: $(VENV)/ready  ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/ready  ## the docstrings as pages: build/docs/index.html
	$(BIN)/pdoc --docformat google --output-directory build/docs sensloc

format: $(VENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

audit: $(VENV)/ready  ## known vulnerabilities of what is installed: asks PyPI, so no part of `test`
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/installed.txt

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sensloc needs Python >= 3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIPFLAGS) --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs data/scenes build
