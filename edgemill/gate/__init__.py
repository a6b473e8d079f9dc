"""The gate on its own: any model file against a checkpoint, for other people's CI."""
