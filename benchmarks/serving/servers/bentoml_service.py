"""A BentoML service: JSON arguments, or the raw body."""

import base64

import bentoml
from forward import Forward


@bentoml.service(workers=1)
class Digits:
    """Answers with label and confidence of the first picture."""

    def __init__(self) -> None:
        self.forward = Forward()

    @bentoml.api
    def predict(self, instances: list) -> dict:
        """Take pixels as nested lists, or `{"b64": …}`."""
        encoded = isinstance(instances[0], dict)
        return self._answer(self.forward.png(base64.b64decode(instances[0]["b64"])) if encoded else self.forward.array(instances))

    @bentoml.api
    def raw(self, pixels: bytes, /) -> dict:
        """Take the pixels as the body itself."""
        return self._answer(self.forward.raw(pixels))

    def _answer(self, images) -> dict:
        labels, confidences = self.forward.answer(images)
        return {"label": labels[0], "confidence": confidences[0]}
