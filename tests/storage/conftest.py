"""The stores and servers of these tests."""

from tests.storage.fixtures import address, kind, ministack_server, rgw_server, s3rver_server, store

__all__ = ["address", "kind", "ministack_server", "rgw_server", "s3rver_server", "store"]
