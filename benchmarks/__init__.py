"""Speed and memory as ratios within one run: `python -m benchmarks.NAME`, results in benchmarks/results/NAME.json."""
