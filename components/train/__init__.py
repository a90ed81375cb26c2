"""The train step: a dataset version in, the trained files of a model version out."""
