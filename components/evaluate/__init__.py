"""Evaluation of a trained model on the sealed test split, and its report."""
