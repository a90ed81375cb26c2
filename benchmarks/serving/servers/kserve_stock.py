"""A KServe model as its documentation writes one: a synchronous predict, the server as shipped."""

import base64

from forward import PORT, Forward
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Digits(Model):
    """Answers V1 and V2."""

    def __init__(self) -> None:
        super().__init__("digits")
        self.forward = Forward()
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        """Take a V1 dictionary or a V2 request."""
        if isinstance(payload, InferRequest):
            labels, confidences = self.forward.answer(payload.inputs[0].as_numpy())
            outputs = [
                InferOutput("label", [len(labels)], "BYTES", data=labels),
                InferOutput("confidence", [len(labels)], "FP32", data=confidences),
            ]
            return InferResponse(payload.id or "0", self.name, outputs)
        instances = payload["instances"]
        encoded = isinstance(instances[0], dict)
        images = self.forward.png(base64.b64decode(instances[0]["b64"])) if encoded else self.forward.array(instances)
        labels, confidences = self.forward.answer(images)
        return {"predictions": [{"label": a, "confidence": b} for a, b in zip(labels, confidences, strict=True)]}


if __name__ == "__main__":
    ModelServer(http_port=PORT, enable_grpc=False).start([Digits()])
