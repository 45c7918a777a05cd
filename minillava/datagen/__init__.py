"""Section 3: from captions and boxes as text to instruction-following data."""
