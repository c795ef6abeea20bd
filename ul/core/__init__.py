"""Floor 0: names, keys, trees, meshes and errors. Imports nothing of ours."""
