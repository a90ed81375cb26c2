"""The domain: images, datasets, the network, the one forward path, the bundle's format and the errors."""
