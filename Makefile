# Each target needs Python >= 3.11 and make, nothing else; the first one called builds the shared environment .venv.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Newer than pyproject.toml when the environment is complete; an interrupted installation leaves none.
STAMP := $(VENV)/.installed

.DELETE_ON_ERROR:
.PHONY: demo test lint docs docs-config wheel

# Fine-tune a real small model on real data, measure it, show ten predictions.
demo: $(STAMP)
	$(BIN)/weitiao demo

# Everything that must hold before a commit, the slow tests included; a process for each core, a file's tests in one.
test: lint
	$(BIN)/python -m pytest -m "" -n auto --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Build the documentation into build/docs, to be opened there; a broken link fails, and so does a page that
# would load something from the network.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean
	@! grep -rlE '<(script|img|iframe)[^>]+src="https?:|<link[^>]+rel="(stylesheet|preconnect)"[^>]+href="https?:' --include='*.html' build/docs

# Write docs/config.md from the config's own fields, and the tables of other programs' keys.
docs-config: $(STAMP)
	$(BIN)/python docs/make_config_reference.py
	$(BIN)/python docs/make_key_tables.py

# Build the wheel, install it into a fresh environment, and start it there.
wheel: $(STAMP)
	.ci/wheel $(BIN)/python

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[docs]'
	@touch $@

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Weitiao needs Python 3.11 or newer, $(PYTHON) is {v.major}.{v.minor}; call make with PYTHON=python3.12 or the like")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@
