"""One script per figure: `python -m analyses` runs all of them, `python -m analyses.NN_NAME` one; both write to figures/."""
