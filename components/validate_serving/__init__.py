"""validate_serving: starts the real predictor on a published version and compares its predictions with the evaluation's."""
