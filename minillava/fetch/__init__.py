"""The paper's real data, from the hub and from COCO."""
