"""Layer 6: planning before training: bitrate, FLOPs, ahead-of-time compilation for pods."""
