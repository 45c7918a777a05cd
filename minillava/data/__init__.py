"""From records to batches: the conversation template of Table 2, ids and labels in one pass, the tokenizer."""

IMAGE = -200  # in ids: a picture goes here
IGNORE = -100  # in labels: no loss here
