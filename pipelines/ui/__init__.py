"""`penstock ui`: pages over a store and the runs of this folder, from a server on this machine or as a static site."""
