"""Six steps of stage 2, in one process or in several that torchrun starts.

torchrun --nproc-per-node 2 tests/learn.py FOLDER whole|shard [STOP]
"""

import json
import sys

import torch
import toy
from safetensors.torch import save_file

from minillava.model import set_trainable
from minillava.training import stages
from minillava.training.parallel import distribute, full_tensor, process_group, rank, world_size

TEXT_ONLY = (0, 2, 5)


def learn(folder, shard=True, stop=None):
    """Train on batches of 4, 4 and 1 samples, some without any picture; at step `stop` act as if Ctrl-C was pressed."""
    samples, seen = toy.tiny_samples(9, text_only=TEXT_ONLY)
    settings = dict(batch_size=4, steps=6, lr=0.5, uneven=True, dtype=torch.float32, tokens=70)
    with process_group():
        model = toy.tiny_llava()
        set_trainable(model, 2)
        if world_size() > 1:
            distribute(model, model.vision_tower, list(model.language_model.layers), torch.float32, shard)
        try:
            losses = stages.train_stage(model, 2, samples, seen, folder, progress=toy.stop_at(stop), **settings)
        except KeyboardInterrupt:
            return
        state = {name: full_tensor(tensor).detach().clone() for name, tensor in model.state_dict().items()}
        if rank() == 0:
            save_file(state, folder / "whole.safetensors")
            (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    from pathlib import Path

    torch.set_num_threads(1)
    stages.adam = toy.sgd
    folder, how, *stop = sys.argv[1:]
    learn(Path(folder), how == "shard", *map(int, stop))
