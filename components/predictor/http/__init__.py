"""The HTTP server: limits on connections, inference requests, health and metadata, and the description of the API."""
