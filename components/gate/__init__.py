"""The gate: a pure decision over an evaluation and a policy (`policy.py`), and the step around it (`judge.py`, `hold.py`)."""
