"""The KServe target: roll a version out on an InferenceService, watch it serve, or put back what served before."""
