"""What crosses a step: one module per file, the only place that reads and writes it. `files.py` lists them."""
