"""One script per figure: `python -m analyses.NAME` computes the table, draws it, and writes both to figures/."""
