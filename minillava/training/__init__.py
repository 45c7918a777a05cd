"""Section 4.2 as code: the loop, the two stages, and how the stand-ins for CLIP and Vicuna are made."""
