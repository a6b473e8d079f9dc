# Everything a developer or a user of a checkout needs. Only Python 3.11+, make and a compiler must be there.
PYTHON ?= python3
UV := .tools/bin/uv
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock
# without bytecode every start of Prefect, MLflow or TensorFlow would compile it anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run up test test-slow lint bench lock lock-toolchains setup clean
.DEFAULT_GOAL := run

run: setup            ## compress the digits example for all targets
	$(BIN)/edgemill optimize examples/digits/recipe.yaml --out build/digits

up: setup             ## Prefect and MLflow servers with the deployments served; Ctrl-C stops all
	$(BIN)/edgemill up

test: setup           ## the fast tests
	$(BIN)/python -m pytest tests -n 2 --dist loadfile -rs -m "not slow"

test-slow: setup      ## browser, kill and full-flow tests
	$(BIN)/python -m pytest tests -rs -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict edgemill
	$(BIN)/lint-imports

bench: setup          ## the quick form of every benchmark
	for name in gate_calibration steady_ratio slow_causes calibration_memory arithmetic qat_onnx \
	  repair mixed_precision layer_latency chained structured search peers bit_exact; do \
	  $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

lock: $(UV)           ## resolve the dependencies anew
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --upgrade --extra pipeline --extra dev pyproject.toml -o $(LOCK)

LOCKS := edgemill/toolchains/locks
lock-toolchains: $(UV) ## resolve every toolchain anew from its NAME.in
	cd $(LOCKS) && for file in *.in; do \
	  name=$${file%.in}; own=$$name.overrides.txt; test -f $$own || own=overrides.txt; \
	  case $$name in rknn|torch) platform="--python-platform x86_64-manylinux_2_28";; *) platform=--universal;; esac; \
	  $(CURDIR)/$(UV) pip compile --quiet --python-version 3.11 $$platform --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --upgrade --override $$own $$file -o $$name.lock || exit 1; done

setup: $(VENV)/.ready

$(VENV)/.ready: $(LOCK) pyproject.toml | $(UV)
	test -d $(VENV) || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --require-hashes --python $(VENV) $(LOCK)
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(VENV) --editable .
	touch $@

$(UV): requirements/uv.lock
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --require-hashes --requirement requirements/uv.lock
	touch $@

clean:
	rm -rf build $(VENV) .tools
