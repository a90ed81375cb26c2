"""validate_serving: boots the real predictor on a published version and holds its answers against the evaluation's."""
