"""The model registry over a store: immutable versions and the deployment ledger."""

from components.registry.ledger import Ledger
from components.registry.manifest import Difference, Manifest, differences, verify_directory
from components.registry.record import Record
from components.registry.registry import ModelVersion, Registry, model_names

__all__ = ["Difference", "Ledger", "Manifest", "ModelVersion", "Record", "Registry", "differences", "model_names", "verify_directory"]
