"""New versions made of published ones, without training: in 8 bits, several in one graph, or the mean of their weights."""
