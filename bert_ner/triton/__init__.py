"Serving with NVIDIA Triton: what runs in the server (`model`), what it serves (`repository`), the server itself, and its clients."
