"""Serving with NVIDIA Triton.

What runs in the server (`model`), what it serves (`repository`), the server itself, and its clients."""
