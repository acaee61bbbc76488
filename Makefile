# `make reproduce` runs the whole book, `make test` runs every check, `make site` builds the web site. All set up .venv first.
# Redirections make GNU make before 4.3 ask a shell, which knows `command`.
PYTHON ?= $(or $(shell command -v python3.11 2>/dev/null),python3)
PROFILE ?= demo
DATA ?=
LAB ?=
BIN := .venv/bin
STAMP := .venv/installed
SITE_STAMP := .venv/site-installed
# As typed: make would read a $ in it as a name of its own.
export QLUNG_DATA_GIVEN := $(value DATA)
# What a cluster's modules or a user's pip.conf put here is not for this environment.
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

.PHONY: setup reproduce test lab notebooks evidence lock site site-packages
setup: $(STAMP)
	@test "$$(cat $(STAMP))" = "$(CURDIR)" || { \
	  echo "This .venv was made in '$$(cat $(STAMP))', and would run the code there: rm -rf .venv, then make again."; exit 1; }

$(STAMP): requirements.lock pyproject.toml
	@case "$$(uname -s)-$$(uname -m)" in Linux-x86_64) ;; *) \
	  echo "requirements.lock is for Linux on x86-64, this is $$(uname -s) on $$(uname -m). On Windows use WSL 2."; \
	  echo "As a library: pip install -e . in an environment of your own with Python 3.11 to 3.13."; exit 1;; esac
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "QLung companion needs Python 3.11: '$(PYTHON)' is missing or another version."; \
	  echo "Install it, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)" > $(STAMP)

reproduce: setup
	$(BIN)/qlung reproduce --profile "$(PROFILE)" --data "$$QLUNG_DATA_GIVEN"

test: setup
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder qlung tests

lab: setup
	$(BIN)/jupyter lab --config=.jupyter/jupyter_lab_config.py $(LAB)

notebooks: setup
	$(BIN)/python tools/build_notebooks.py

# Static pages of the committed notebooks and docs: nothing is executed, every warning is an error.
site: site-packages
	$(BIN)/python -m sphinx -W --keep-going -q -j 2 -d site/doctrees -c docs . site/html
	@echo "The site: site/html/index.html"

site-packages: setup $(SITE_STAMP)

$(SITE_STAMP): docs/requirements.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.lock
	@touch $(SITE_STAMP)

evidence: setup
	$(BIN)/python tools/publish_evidence.py $(or $(filter-out demo,$(PROFILE)),sc) "$$QLUNG_DATA_GIVEN"

lock: setup
	{ head -1 requirements.lock; $(BIN)/python -m pip freeze --all --exclude qlung --exclude pip | sed 's/+cu[0-9]*//' \
	  | grep -vxF -f docs/requirements.lock; } > requirements.new
	mv requirements.new requirements.lock
