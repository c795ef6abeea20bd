"""Layer 4: loading trained models: autoencoders, generators, guiding models, exports."""
