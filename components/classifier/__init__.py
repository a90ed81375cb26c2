"""The domain: decoding and preprocessing of pictures, networks, statistics, and the errors."""
