# Two commands: `make reproduce` runs the whole book, `make test` runs every check. Both set up .venv first.
PYTHON ?= $(or $(shell command -v python3.11),python3)
PROFILE ?= demo
DATA ?=
LAB ?=
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: setup reproduce test lab notebooks evidence lock
setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "QLung companion needs Python 3.11: '$(PYTHON)' is missing or another version."; \
	  echo "Install it, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

reproduce: setup
	$(BIN)/qlung reproduce --profile "$(PROFILE)" --data "$(DATA)"

test: setup
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder qlung tests

lab: setup
	$(BIN)/jupyter lab --config=.jupyter/jupyter_lab_config.py $(LAB)

notebooks: setup
	$(BIN)/python tools/build_notebooks.py

evidence: setup
	$(BIN)/python tools/publish_evidence.py $(or $(filter-out demo,$(PROFILE)),sc) "$(DATA)"

lock: setup
	{ head -1 requirements.lock; $(BIN)/python -m pip freeze --all --exclude qlung --exclude pip | sed 's/+cu[0-9]*//'; } > requirements.new
	mv requirements.new requirements.lock
