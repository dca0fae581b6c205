"""What the commands do, apart from reading options and printing: one module per command."""
