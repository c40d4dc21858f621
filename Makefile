# The five commands that a developer repeats.
PYTHON ?= python

.PHONY: install lint types test quickstart

install:  ## this clone and all that its tests need, into the active environment
	pip install uv
	uv pip install --python "$$(command -v $(PYTHON))" -e ".[sim,procgen,test]"

lint:
	ruff check .
	ruff format --check .

types:
	mypy

test:
	pytest -q -n 2 --dist loadfile

quickstart:
	$(PYTHON) -m vgen_jax.main --config=configs/quickstart.py --workdir=out
