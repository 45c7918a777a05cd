"""Stand-ins for what the paper starts from: GPT-4 as teacher, judge and expert, CLIP, Vicuna, ScienceQA."""
