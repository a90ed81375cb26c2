"""Batch scoring: resolve a model version -> plan -> score pieces in parallel -> one Parquet file, or a dataset of parts."""
