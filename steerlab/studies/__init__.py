"""Published experiments as one command each: configuration, content-keyed units of work, judging, and the table of the claim."""
