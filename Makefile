# Every target sets up what it needs in .venv; PYTHON is any Python from 3.10 on.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check format docs benchmark-real backbone clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: .venv/.installed ## simulate, fine-tune, prune and evaluate, into demo/
	$(BIN)/pickeropt demo

# WORKERS=N: that many processes, each with one thread for arrays; 0: one process, which a debugger can stop.
WORKERS ?= 2
test: .venv/.installed ## all tests; ROOM=prune: those of one room
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(if $(ROOM),$(or $(wildcard tests/$(ROOM) tests/test_$(ROOM).py),$(error no tests of a room $(ROOM))))

check: .venv/.installed docs ## format, lint, types, layers, docs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

format: .venv/.installed ## put the source in its format
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

docs: .venv/.installed ## the documentation as a site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

benchmark-real: .venv/.installed ## accuracy on real micrographs, in the folder $PICKEROPT_DATA
	$(BIN)/python benchmarks/real.py

# WEIGHTS=FILE: ImageNet weights where no network is. UNLABELLED=DIR: real micrographs to learn from without labels.
# PROCESSES=N: that many share each batch of four views, so 1, 2 or 4; beside other jobs faster than as many threads.
PROCESSES ?= 1
backbone: .venv/.installed ## make the shipped backbone anew, in runs/ (two hours and 14 GB on two cores)
	$(BIN)/pickeropt dataset simulate runs/simulated --micrographs 2000 --size 1024 --pixel-size 1.2-4 --species all --points 80
	$(BIN)/$(if $(filter-out 1,$(PROCESSES)),torchrun --nproc-per-node $(PROCESSES) -m pickeropt,pickeropt) \
	  pretrain runs/simulated --views 1 --ignore fragment $(if $(WEIGHTS),--weights $(WEIGHTS)) \
	  $(if $(UNLABELLED),--unlabelled $(UNLABELLED)) --out runs/resnet18.safetensors

clean: ## remove what the other targets made, except .venv
	rm -rf demo runs site dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pickeropt tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("pickeropt needs Python 3.10 or newer, $(PYTHON) is %d.%d; run make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	{ $(BIN)/python -m pip install --quiet uv \
	  && $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"; } \
	|| $(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $@
