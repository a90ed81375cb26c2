"""Loading and unloading of models by clients, which KServe's gRPC server offers to anybody: closed here."""

from grpc_interceptor.exceptions import PermissionDenied

from components.predictor.sdk import ModelRepositoryExtension

_MESSAGE = "models are not loaded or unloaded by clients; deploy another version instead"


class ClosedRepository(ModelRepositoryExtension):  # type: ignore[misc]  # kserve has no types
    """Refuses every request of the model repository extension."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise PermissionDenied(_MESSAGE)

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise PermissionDenied(_MESSAGE)
