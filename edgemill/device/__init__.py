"""What runs on a board: measuring, the lease, the signature. Light: numpy, pydantic, psutil, pyyaml, the runtime."""
