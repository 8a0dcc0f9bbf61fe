# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long check docs site install clean fuzz faults audit

demo: $(VENV)/.installed
	rm -rf demo-out
	$(BIN)/mergetool demo demo-out

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# what the suite shows for one method or algorithm, for the others
test-long: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m long

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_layering.py

# What lives longest: damaged inputs, and runs that are disturbed. SEED=... runs the cases of another day again.
CASES ?= 20000
ROUNDS ?= 1000
SEED ?= $(shell date -u +%Y%m%d)

fuzz: $(VENV)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

faults: $(VENV)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.faults --rounds $(ROUNDS) --seed $(SEED)

# needs the network: known vulnerabilities of the pinned versions
audit: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

# the command-line reference and the schemas of recipes are generated from the code; tests compare them
docs: $(VENV)/.installed
	for kind in merge align ama study; do $(BIN)/mergetool schema $$kind > recipes/schemas/$$kind.json || exit 1; done
	$(BIN)/python -m tools.recipe_reference > docs/recipe-reference.md
	$(BIN)/typer mergetool.cli.main utils docs --name mergetool --title "Command line" --output docs/cli.md

# the documentation as a site, in site/; --strict: a link to nowhere is an error
site: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

install: $(VENV)/.installed

# --no-build-isolation would need hatchling beforehand; pip fetches it by itself
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo-out site .pytest_cache .ruff_cache .hypothesis
