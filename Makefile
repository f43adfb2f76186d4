# Everything runs in .venv, which `make env` makes from the package registries; nothing else is needed but Python 3.11+ and make.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test lint bench torture env
demo: env
	$(BIN)/clprune demo

# Two processes of one thread each: half the time of one process with two threads on small tensors.
test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: env
	$(BIN)/python examples/benchmarks/recording_overhead.py --short
	$(BIN)/python examples/benchmarks/selection.py --short

torture: env
	$(BIN)/python tests/torture.py

env: .venv/.made

.venv/.made: pyproject.toml
	@test -n "$(PYTHON)" || { echo "clprune needs Python 3.11 or newer on the PATH"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	@# uv leaves modules uncompiled; where Python may not write bytecode every later command would compile them anew, for seconds
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c "import torch.optim, torch._dynamo, torchvision, datasets, faiss, clprune.pipeline, clprune.evaluation"
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/clprune --help >/dev/null
	touch .venv/.made
