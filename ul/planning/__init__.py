"""Layer 6: plan before training: bitrate, FLOPs, and compilation for machines not attached."""
