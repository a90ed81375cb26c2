"""A LitServe API: JSON only, the model in a worker process of its own, as LitServe always has it."""

import base64

import litserve
from forward import PORT, Forward


class Digits(litserve.LitAPI):
    """Answers with label and confidence of the first picture."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.forward = Forward()

    def decode_request(self, request: dict):
        """Take pixels as nested lists, `{"b64": …}`, or the pixels' bytes in base64."""
        if "raw" in request:
            return self.forward.raw(base64.b64decode(request["raw"]))
        instances = request["instances"]
        encoded = isinstance(instances[0], dict)
        return self.forward.png(base64.b64decode(instances[0]["b64"])) if encoded else self.forward.array(instances)

    def predict(self, images):
        """Run the model."""
        return self.forward.answer(images)

    def encode_response(self, output) -> dict:
        """Name what came out."""
        labels, confidences = output
        return {"label": labels[0], "confidence": confidences[0]}


if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, log_level="warning", generate_client_file=False)
