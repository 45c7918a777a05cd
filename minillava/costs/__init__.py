"""What a model and its training need: memory, arithmetic, time, money, and whether a machine has that much."""
