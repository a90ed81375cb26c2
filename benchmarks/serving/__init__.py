"""The predictor beside other servers."""
