# `make reproduce` runs the whole book, `make test` runs every check, `make site` builds the web site. All set up .venv first.
ifeq ($(OS),Windows_NT)
  $(error Windows is not supported: use WSL 2, and this command inside it)
endif
# The first that runs. Redirections make GNU make before 4.3 ask a shell.
PYTHON ?= $(or $(shell for p in .venv/bin/python python3.11 python3.12 python3.13; do $$p -V >/dev/null 2>&1 && echo $$p && break; done),python3)
# cuda or cpu: as .venv has it, else by what the machine has. A CPU build of torch has no CUDA libraries and comes from its makers' index.
TORCH ?= $(or $(shell cat .venv/torch 2>/dev/null),$(if $(shell command -v nvidia-smi 2>/dev/null)$(wildcard /dev/nvidia*),cuda,cpu))
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu
PROFILE ?= demo
DATA ?=
LAB ?=
BIN := .venv/bin
STAMP := .venv/installed
SITE_STAMP := .venv/site-installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV ?= uv pip compile
SUPPORTED := (sys_platform == 'darwin' or sys_platform == 'linux')
# As typed: make would read a $ in it as a name of its own.
export QLUNG_DATA_GIVEN := $(value DATA)
# What a cluster's modules or a user's pip.conf put here is not for this environment.
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

.PHONY: setup same reproduce test lab notebooks evidence lock site site-packages
setup: same $(STAMP)
	@test "$$(cat $(STAMP))" = "$(CURDIR)" || { \
	  echo "This .venv was made in '$$(cat $(STAMP))', and would run the code there: rm -rf .venv, then make again."; exit 1; }

same:  # as what is there
	@test ! -x $(BIN)/python || test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" || { \
	  echo "This .venv has $$($(BIN)/python -V), not $(PYTHON): rm -rf .venv, then make again."; exit 1; }
	@test ! -f .venv/torch || test "$(TORCH)" = "$$(cat .venv/torch)" || { \
	  echo "This .venv was made with TORCH=$$(cat .venv/torch): rm -rf .venv, then make again."; exit 1; }

$(STAMP): requirements.lock pyproject.toml | same
	@case "$$(uname -s)-$$(uname -m)" in Linux-x86_64|Linux-aarch64|Darwin-arm64) ;; *) \
	  echo "QLung companion runs on Linux (x86-64 or ARM) and macOS (ARM), this is $$(uname -s) on $$(uname -m)."; \
	  echo "torch, in the version of requirements.lock, is not built for it."; exit 1;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo "QLung companion needs Python 3.11, 3.12 or 3.13: '$(PYTHON)' is missing or another version."; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "TORCH=$(TORCH): choose cpu or cuda"; exit 1;; esac
	$(PYTHON) -m venv .venv
	@echo "$(TORCH)" > .venv/torch; cp requirements.lock .venv/wanted
	@if test "$(TORCH)-$$(uname -s)" = cpu-Linux; then \
	  if $(PIP) --retries 1 --no-deps --index-url "$(CPU_WHEELS)" $$(sed -n 's/^torch[a-z]*==.*/&+cpu/p' requirements.lock) 2>/dev/null; \
	  then grep -Ev '^(cuda|nvidia|triton)' requirements.lock > .venv/wanted; \
	  else echo "No CPU build of torch at $(CPU_WHEELS): taking the CUDA build, 4 GB more."; fi; fi
	$(PIP) -r .venv/wanted
	$(PIP) --no-deps --no-build-isolation --editable .
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

lock:  # keeps the versions that are there; for newer ones: make lock UV="uv pip compile --upgrade"
	$(UV) --quiet --universal --python-version 3.11 --extra dev --extra slurm --no-annotate --custom-compile-command "make lock" \
	  pyproject.toml --output-file requirements.lock
	sed -i.old -e "s/python_full_version < '3.14' and //; s/ and $(SUPPORTED)//; s/ ; $(SUPPORTED)//" requirements.lock
	rm requirements.lock.old
