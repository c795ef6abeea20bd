"""Networks in PyTorch, and the conversion of parameters to them."""
