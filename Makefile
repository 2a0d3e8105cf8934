# Two commands matter: `make quickstart` and `make test`. Each makes the virtual environment where it is missing.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/quickstart
BIN := $(VENV)/bin

.PHONY: quickstart test lint docs notebook install dev wheel clean

quickstart: $(VENV)/.installed
	$(BIN)/hwnas quickstart --out $(OUT)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder # a process a core, one thread each

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet # strict, as mkdocs.yml says: a link that leads nowhere is an error

notebook: $(VENV)/.dev # runs it again and keeps what it shows; two minutes
	rm -rf examples/runs/first-run
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace examples/first_run.ipynb
	rm -rf examples/runs

install: $(VENV)/.installed
dev: $(VENV)/.dev

wheel: $(VENV)/.dev # and the source distribution
	$(BIN)/python -m hatchling build -t wheel -t sdist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) dist build site
