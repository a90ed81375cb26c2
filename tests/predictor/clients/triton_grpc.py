"""Asks with Triton's gRPC client: address, model's name, a file of pictures (.npy), where the probabilities go (.npy).

In a process of its own: its generated messages and KServe's have the same names, and cannot be loaded together.
"""

import sys

import numpy as np
import tritonclient.grpc as triton

address, name, pictures, answers = sys.argv[1:]
images = np.load(pictures)
with triton.InferenceServerClient(address) as client:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    (declared,) = client.get_model_metadata(name).inputs
    tensor = triton.InferInput(declared.name, images.shape, declared.datatype)
    tensor.set_data_from_numpy(images)
    found = client.infer(name, [tensor], outputs=[triton.InferRequestedOutput(it) for it in ("probabilities", "label")])
    assert len(found.as_numpy("label")) == len(images)
    np.save(answers, found.as_numpy("probabilities"))
