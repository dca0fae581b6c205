"""steerlab beside the packages a user would take instead, each in an environment of its own: `python -m benchmarks.peers`."""
