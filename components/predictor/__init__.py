"""The predictor: KServe's model server around one verified model version, hardened for clients that nobody controls."""
