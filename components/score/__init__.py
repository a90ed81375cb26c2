"""Batch scoring: resolve a model version -> plan -> score pieces in parallel -> merge into one Parquet file."""
