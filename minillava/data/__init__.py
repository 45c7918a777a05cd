"""From records to batches: the conversation template of Table 2, ids and labels in one pass, the tokenizer."""
