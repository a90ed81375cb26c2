"""The inference protocols: bytes of a request in, bytes of a response out, without a word about connections."""
