"""Wrong answers to exercise 10: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("10.1", 'sent += [{"role": "user", "content": shown}, {"role": "assistant", "content": reply}]\n', 'context = "\\n".join(f"{s}\\n{r}" for s, r in shots) + f"\\n{context}"\n        break\n', "glued"),
    ("10.1", '{"role": "user", "content": shown}, {"role": "assistant", "content": reply}', '{"role": "assistant", "content": shown}, {"role": "user", "content": reply}', "exchanged"),
    ("10.1", "for shown, reply in shots:", "for shown, reply in []:", "left out"),
    ("10.1", "return sent + [", "return sent[1:] + sent[:1] + [", "does not come first"),
    ("10.2", ".strip() for h, end in zip(found, ends)", '.strip().split("\\n\\n")[0] for h, end in zip(found, ends)', "first paragraph"),
    ("10.2", 'r"^[\\s#*>]*(question', 'r"[\\s#*>]*(question', "middle of a line"),
    ("10.2", "if not found or asks != [True, False] * (len(asks) // 2) or not all(bodies):", "q = [b for b, a in zip(bodies, asks) if a]\n    return list(zip(q, [b for b, a in zip(bodies, asks) if not a]))\n    if False:", "in silence"),
    ("10.2", "if not found or", 'if not text.startswith("Question:\\n") or', "only the form asked for"),
    ("10.3", "if count[phrase] >= least:", "if True:", "rare phrases bring"),
    ("10.3", "some if len(some) <= most else draw(phrase, some)", "some", "all its captions"),
    ("10.3", "if phrase in told]", "if phrase in told and all(count[p] >= least for p in told)]", "thrown out"),
    ("10.3", "pool |= set(some if len(some) <= most else draw(phrase, some))\n    return sorted(pool)", "pool = [*pool, *(some if len(some) <= most else draw(phrase, some))]\n    return sorted(pool)", "kept twice"),
    ("10.2a", "[*begins[1:], end]", "begins[1:]", "last one is lost"),
    ("10.2a", "[*begins[1:], end]", "[*(b - 1 for b in begins[1:]), end]", "one letter early"),
    ("10.2b", "turns[::2], turns[1::2]", "turns, turns[1:]", "paired with the next"),
    ("10.2b", "turns[::2], turns[1::2]", "turns[: len(turns) // 2], turns[len(turns) // 2 :]", "first half is paired"),
]  # fmt: skip
