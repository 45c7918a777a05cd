"""Who plays the paper's expensive parts: GPT-4 as teacher, judge and expert, CLIP, Vicuna, ScienceQA."""
