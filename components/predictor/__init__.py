"""The predictor: one verified model version behind KServe's V1, V2 and gRPC protocols, hardened against hostile clients.

KServe is only a shell here. Its command line, its port and process handling and its gRPC service are used (sdk.py, server.py,
grpc.py), so that a ServingRuntime starts this image as it starts any other. An HTTP inference request never enters KServe's
code: KServe's own path took 2 to 3 times as long (docs/benchmarks.md) and has no limits on bodies, headers or waiting. The way
of such a request:

    http/connections.py -> http/app.py -> dispatch.py -> protocol/v1.py or v2.py -> protocol/request.py -> model.py -> bundle/model.py

A request by gRPC begins in grpc.py and goes on in dispatch.py. On a GPU, model.py runs the model through batching.py. What makes
small requests fast stands in speed.py, with figures.
"""
