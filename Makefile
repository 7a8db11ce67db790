# make demo   makes .venv and a synthetic dataset, trains and scores every system on it, prints AUC and pAUC
# make demo-year YEAR=2023   the same in a few minutes for another year of the challenge, development and evaluation
# make demo-years   the same for all of them, in half an hour
# make test   makes .venv and runs the tests
# make torture   kills the scripts, fills their disk, flips bits of their files, by the hundred (half an hour)
# make lint   makes .venv and runs the linter
PYTHON ?= python3
BIN := .venv/bin
YEAR := 2023

.PHONY: demo demo-year demo-years test torture lint benchmark clean

# The stamp is newer than what it was made from: a changed dependency installs anew.
.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]" -c constraints.txt
	touch $@

demo: .venv/installed
	$(BIN)/python make_demo_data.py
	$(BIN)/python 00_train.py -d --config demo/baseline.yaml
	$(BIN)/python 01_test.py -d --config demo/baseline.yaml
	$(BIN)/python 00_train.py -e --config demo/baseline.yaml --system baseline_ae --system neighbors
	$(BIN)/python 01_test.py -e --config demo/baseline.yaml --system baseline_ae --system neighbors
	$(BIN)/python 02_evaluate.py demo/result/eval --truth demo/eval_data_list.csv
	$(BIN)/python 02_evaluate.py demo/result/dev --report demo/report.html
	@echo
	@echo "All figures are of synthetic demo data. Look at:"
	@echo "  demo/report.html                             AUC and pAUC, ROC curves, score histograms"
	@echo "  demo/result/dev/<system>/result.csv          AUC and pAUC per machine ID"
	@echo "  demo/result/eval/<system>/anomaly_score_*    what is sent in to the challenge"
	@echo "  demo/model/dev/<system>/history_*.png        loss per epoch"

demo-year: .venv/installed
	$(BIN)/python make_demo_data.py --year $(YEAR) --directory demo_$(YEAR)
	$(BIN)/python 00_train.py -d --config demo_$(YEAR)/baseline.yaml
	$(BIN)/python 01_test.py -d --config demo_$(YEAR)/baseline.yaml
	$(BIN)/python 00_train.py -e --config demo_$(YEAR)/baseline.yaml
	$(BIN)/python 01_test.py -e --config demo_$(YEAR)/baseline.yaml
	$(BIN)/python 02_evaluate.py demo_$(YEAR)/result/eval --config demo_$(YEAR)/baseline.yaml --truth demo_$(YEAR)/ground_truth
	$(BIN)/python 02_evaluate.py demo_$(YEAR)/result/dev --config demo_$(YEAR)/baseline.yaml --report demo_$(YEAR)/report.html
	@echo
	@echo "All figures are of synthetic demo data; demo_$(YEAR)/report.html shows them."

demo-years: .venv/installed
	for year in 2021 2022 2023 2024 2025 2026; do $(MAKE) demo-year YEAR=$$year || exit 1; done

# Each core takes whole files; the longest come early by their names.
test: .venv/installed
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

torture: .venv/installed
	$(BIN)/python tests/torture.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

benchmark: .venv/installed
	$(BIN)/python benchmarks/benchmark.py

clean:
	rm -rf .venv demo demo_[0-9]*
