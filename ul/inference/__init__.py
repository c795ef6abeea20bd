"""Loading trained models: autoencoders, generators, guiding models, exports."""
