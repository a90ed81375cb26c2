"""From a trained and evaluated model to an immutable version in the registry."""
