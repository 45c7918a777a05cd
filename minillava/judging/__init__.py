"""Section 5: answers of a model, benchmarks, judges, the relative score, ScienceQA, hallucination."""
