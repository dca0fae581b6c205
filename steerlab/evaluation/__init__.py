"""What was written, turned into numbers: every one with an interval, missing is NaN with a reason."""
