# What a person types here:
#   make demo    images for all four tasks from a small example manifest, on this machine's CPU
#   make test    the tests (real Ray, real pipelines; half an hour on two cores)
#   make nightly those that take longest too, fifty kills, ten thousand stories of faults, every loss of power (hours)
#   make check   formatting, lint, types and the unit tests without models (minutes)
#   make lint    the first three of those
#   make clean   remove what the above made, except .venv
# Each sets up .venv itself; a second call finds it ready. PYTHON=… picks another interpreter (3.10 to 3.12).

PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo-output

# uv takes 28 s for what takes pip 220 s; where uv cannot be had or cannot reach its index, pip does it. Bytecode
# is made here on all cores: otherwise the first run makes that of mindone twice, in both pools, on one core each.
define install
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint infra/constraints.txt --editable '$(1)' \
		|| $(BIN)/python -m pip install --quiet --constraint infra/constraints.txt --editable '$(1)'
endef

# What takes an hour by itself need not hang.
PATIENT := -o timeout=7200 -o faulthandler_timeout=7500

.PHONY: demo test nightly check lint clean help

help:
	@sed -n '2,8s/^# \{0,3\}//p' Makefile

demo: $(VENV)/.base
	$(BIN)/python jobs/generate.py --manifest manifests/examples/demo.parquet --output $(DEMO_OUTPUT)
	@echo "The images are in $(abspath $(DEMO_OUTPUT)): every *.tar, indexed by the *.parquet beside it; all of them in one picture:"
	@$(BIN)/python jobs/report.py --output $(DEMO_OUTPUT) --contact-sheet $(DEMO_OUTPUT).png

test: $(VENV)/.dev
	$(BIN)/python -m pytest tests -m "not nightly" -n 2 --dist loadfile --no-loadscope-reorder

nightly: $(VENV)/.dev
	KILLS=$${KILLS:-50} $(BIN)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder $(PATIENT)
	$(BIN)/python -m tests.faults seeds
	$(BIN)/python -m tests.faults power

check: lint
	$(BIN)/python -m pytest tests/unit -m "not models and not ray" -n 2

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf demo-output demo-output.png .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find jobs workers manifests tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.10, 3.11 or 3.12 found; install one or say PYTHON=path' >&2; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON): about 4 GB, a minute or a few."
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint infra/constraints.txt uv
	@touch $@

$(VENV)/.base: $(VENV)/.python pyproject.toml infra/constraints.txt
	$(call install,.)
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(call install,.[dev])
	@touch $@
