"""Layer 2: saving, verifying and restoring train states; the workdir; safetensors."""
