"""What a caller may ask for: the contract that the API checks and the worker reads."""
