"""Wrong answers to exercise 14: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("14.1", "100 * sum(c for _, c in pairs) / sum(r for r, _ in pairs)", "sum(100 * c / r for r, c in pairs) / len(pairs)", "mean of the ratios"),
    ("14.1", "100 * sum(c for _, c in pairs) / sum(r for r, _ in pairs)", "100 * sum(r for r, _ in pairs) / sum(c for _, c in pairs)", "divided by the candidate"),
    ("14.1", "100 * sum", "sum", "no percentage"),
    ("14.1", 'raise ValueError("no reviews")', "return 0", "never a score"),
    ("14.2", "scores[int(0.025 * len(scores))], scores[int(0.975 * len(scores)) - 1]", "scores[0], scores[-1]", "smallest and the largest"),
    ("14.2", "return scores[int(0.025 * len(scores))], scores[int(0.975 * len(scores)) - 1]", "import statistics as s\n    return s.mean(scores) - 1.96 * s.stdev(scores), s.mean(scores) + 1.96 * s.stdev(scores)", "1.96 deviations"),
    ("14.2", "relative_score([pairs[i] for i in pick])", "relative_score([(r, pairs[i][1]) for i, (r, _) in zip(pick, pairs)])", "only the candidate's"),
    ("14.2", "relative_score([pairs[i] for i in pick])", "sum(100 * pairs[i][1] / pairs[i][0] for i in pick) / len(pick)", "mean of ratios"),
    ("14.3", "(a[0] - a[1]) + (b[0] - b[1])", "(a[0] - a[1]) + (b[1] - b[0])", "reference's lead"),
    ("14.3", "(a[0] > a[1]) - (a[0] < a[1]) != (b[1] > b[0]) - (b[1] < b[0])", "a != (b[1], b[0])", "every change of a score"),
    ("14.3", "(b[1] > b[0]) - (b[1] < b[0])", "(b[0] > b[1]) - (b[0] < b[1])", "compared by place"),
    ("14.3", "sum((a[0] - a[1]) + (b[0] - b[1]) for a, b in both) / (2 * len(both))", "sum(a[0] - a[1] for a, b in both) / len(both)", "one order alone"),
    ("14.2a", "values[picks]", "values.sort().values[picks]", "sorted first"),
    ("14.2a", "values[picks]", "values[picks.T]", "draws stand in columns"),
    ("14.2b", "sorted(scores)", "scores", "not sorted"),
    ("14.2b", "some[cut], some[-cut - 1]", "some[0], some[-1]", "nothing is cut off"),
    ("14.2b", "some[-cut - 1]", "some[-cut]", "one too few"),
]  # fmt: skip
