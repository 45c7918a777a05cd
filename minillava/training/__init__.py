"""Section 4.2: the training loop and the two stages; optimizers, checkpoints, many processes, LoRA, loss curves."""
