"""Section 5: answers, the benchmark, the judge, the relative score, and the tables beside the paper's."""
