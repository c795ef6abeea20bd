"""Layer 0: random keys, meshes, trees, files, processes and errors; imports no other layer."""
