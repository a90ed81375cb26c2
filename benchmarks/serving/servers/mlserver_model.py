"""A custom MLServer runtime: V2 JSON, in the server's own process."""

import numpy as np
from forward import Forward
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Digits(MLModel):
    """Takes UINT8 pixels, or BYTES holding one base64 picture."""

    async def load(self) -> bool:
        """Load the model."""
        self.forward = Forward()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with label and confidence."""
        entry = payload.inputs[0]
        if entry.datatype == "BYTES":
            (encoded,) = self.decode(entry)
            images = self.forward.png(encoded)
        else:
            images = np.asarray(NumpyCodec.decode_input(entry), np.uint8)
        labels, confidences = self.forward.answer(images)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="label", shape=[len(labels)], datatype="BYTES", data=labels),
                ResponseOutput(name="confidence", shape=[len(labels)], datatype="FP32", data=confidences),
            ],
        )
