"""What a run can be given: one module per group of settings, each a frozen model with bounds and descriptions."""
