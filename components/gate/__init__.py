"""The gate: a pure decision over an evaluation and a policy (`decide.py`), and the step around it (`step.py`)."""
