"""Every test runs offline, without a screen, on two threads, and with the same random examples each time."""

import os

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # read once, when torch loads: idle threads sleep, workers share the cores

import torch
from hypothesis import settings

torch.set_num_threads(2)
settings.register_profile("minillava", deadline=None, derandomize=True)
settings.load_profile("minillava")
