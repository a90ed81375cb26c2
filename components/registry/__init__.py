"""The model registry over a store: immutable versions and the deployment ledger."""

from components.registry.ledger import Ledger, Record
from components.registry.manifest import Manifest, verify_directory
from components.registry.registry import ModelVersion, Registry

__all__ = ["Ledger", "Manifest", "ModelVersion", "Record", "Registry", "verify_directory"]
