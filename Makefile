# Every target installs what it needs into .venv; nothing is fetched but packages.
#
#   make install TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
#
# gets torch's small CPU build. Without TORCH_INDEX torch comes from where pip looks anyway; on Linux that
# is the build for NVIDIA GPUs, several GB larger.

PYTHON ?= python3
TORCH_INDEX ?=
DEMO_OUT ?= demo
SEED ?= 0

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt

# Torch on one thread: on shared cores more of them cost more than they gain. Albumentations stays offline.
export OMP_NUM_THREADS ?= 1
export NO_ALBUMENTATIONS_UPDATE ?= 1

.PHONY: install demo test test-slow check clean

install: .venv/.installed

# Torch first, so that the second resolution finds the build that was asked for and leaves it alone.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tnet-geo needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0 $(TORCH_INDEX)
	$(PIP) -e '.[dev]'
	touch $@

# The whole journey on scenes made on the spot; a second call goes on from what is there.
demo: install
	$(BIN)/tnet-geo demo --out $(DEMO_OUT) --seed $(SEED)

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf .venv demo build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
