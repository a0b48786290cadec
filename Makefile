# Everything sets itself up: a virtual environment in .venv with the pinned requirements.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
# Finished deliveries in the tables that the last part of `make soak` measures.
ROWS := 10000000
BIN := $(VENV)/bin

.PHONY: demo test check bench soak setup clean

demo: $(VENV)/runtime.stamp ## Run everything on sample data. Ctrl-C ends it.
	@$(BIN)/python manage.py demo $(ARGS)

test: $(VENV)/dev.stamp check ## Check everything, then run all tests this machine can run.
	@$(BIN)/python -m testing

check: $(VENV)/dev.stamp ## Format, lint, types, layers, templates, migrations, deployment settings.
	@$(BIN)/python -m testing.check

bench: $(VENV)/dev.stamp ## Print what the platform can do on this machine.
	@$(BIN)/python -m benchmarks

soak: $(VENV)/dev.stamp ## Record and deliver while everything is killed again and again, then with ten million rows.
	@$(BIN)/python -m soak $(ARGS)
	@$(BIN)/python -m benchmarks.growth --rows $(ROWS) --runs 3

setup: $(VENV)/dev.stamp ## Only set up.

clean: ## Remove what the other targets made.
	rm -rf $(VENV) var staticfiles .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/python.stamp:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Say which: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@echo "setup     Making the virtual environment …"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv does not work here. On Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/runtime.stamp: requirements.txt $(VENV)/python.stamp
	@echo "setup     Installing what it needs (a minute the first time) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/runtime.stamp
	@echo "setup     Installing what tests need …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
