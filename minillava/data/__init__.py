"""From records to batches: the conversation template of Table 2, ids and labels in one pass, the tokenizer."""

IMAGE = -200  # in ids: the place of a picture
IGNORE = -100  # in labels: a token without loss
