"""`minillava judge`: scores from files of reviews, ScienceQA answers and yes-or-no answers, and reviews of answers.

Nothing here needs torch, so it starts at once. Each verb returns its results as a JSON value, the same as text, and
whether something was left out. The replies of a judge behind an API are kept in the folder of `--out`, and their
requests are never sent again.

    minillava judge reviews reviews.jsonl
"""

from types import SimpleNamespace

from minillava.asking import Budget, estimate_cost, price_of
from minillava.commands import MOST_LISTED
from minillava.data.scienceqa import read_labels
from minillava.files import Excluded, FileError, read_jsonl, write_jsonl
from minillava.judging import ensembles, pope, reviews, scienceqa
from minillava.judging.bench import load_bench
from minillava.judging.controls import judge_controls, read_controls
from minillava.judging.judges import ApiJudge, both_orders, match_answers, mean_words, review_rows
from minillava.judging.rubric import RULES, read_rules
from minillava.standins import quality
from minillava.standins.bench import build_bench
from minillava.standins.judge import OfflineJudge
from minillava.text import aligned, listed

OFFLINE = "offline"
Found = tuple[dict, str, bool]  # a verb's results, the same as text, and whether something was left out


def judge_reviews(options) -> Found:
    """Relative scores of files of reviews; with --runs their mean and spread, with --agree how far two judges agree."""
    files = [reviews.read_reviews(path) for path in options.files]
    out, lines = _scored(files, f"Over {len(files)} runs" if options.runs else "")
    if options.agree:
        if len(files) != 2:
            raise FileError(f"--agree compares two judges: give two files, not {len(files)}")
        found = out["agreement"] = reviews.agreement(*(f.used for f in files))
        none = "none (a judge gave equal scores throughout)"
        score, lead = (none if found[k] is None else f"{found[k]:.3f}" for k in ("candidate", "lead"))
        said = f"the candidate's score {score}, its lead over the reference {lead}"
        apart = f" (of one judge only, so not compared: {found['unshared']})" if found["unshared"] else ""
        lines.append(f"Rank correlation over {found['questions']} questions{apart}: {said}")
    return out, "\n\n".join(lines), any(f.excluded for f in files)


def _own_texts(path, problems) -> dict[str, str]:
    """An expert's answers. Raises FileError if one is to another problem than that with its id."""
    results = scienceqa.read_results(path)
    _, others = scienceqa.answers_of(problems, results)
    for name, other in others.items():
        raise FileError(f"{path}: problem {name}: {other} ({len(others)} such in all)")
    return results.texts


def _expert_answers(options, problems, llava) -> tuple[dict[str, str], dict[str, str] | None]:
    """The text-only expert's answers, and its second ones: from files, or asked for and written to --out."""
    expert, again = (path and _own_texts(path, problems) for path in (options.expert, options.again))
    if not options.ask:
        return expert, again
    if not options.out:
        raise FileError("--ask needs --out, a folder for the expert's replies")
    from minillava.judging.api_expert import ApiExpert

    train = read_labels(options.shots, "train").values() if options.shots else []
    shots = [problem for problem in train if problem.id not in problems]
    asked = ApiExpert(_client(options, options.ask), options.out / "replies", shots, **_money(options, options.ask))
    expert = expert or asked.answers(problems)
    again = again or asked.final_answers(problems, expert, llava)
    for name, texts in (("expert", expert), ("again", again)):
        rows = [{"question_id": n, "text": text, "model_id": options.ask} for n, text in texts.items()]
        write_jsonl(rows, options.out / f"{name}.jsonl")
    return expert, again


def judge_scienceqa(options) -> Found:
    """ScienceQA accuracy in Table 7's columns, unreadable answers and guesses; with --expert also the two ensembles."""
    problems, results = read_labels(options.labels), scienceqa.read_results(options.results)
    out = scienceqa.evaluate(problems, results, options.guess)
    ways = {"strict": "read strictly", "stored": "the file's own indices", "guessed": f"guessed, seed {options.guess}"}
    scores = {what: out[key] for key, what in ways.items() if key in out}
    for path in options.controls:
        found = scienceqa.evaluate(problems, scienceqa.read_results(path))
        scores[path.stem] = out.setdefault("controls", {})[path.stem] = found["strict"]
        out["excluded"] += [f"{path.stem}, {e}" for e in found["excluded"]]
    if options.expert or options.ask:
        llava, _ = scienceqa.answers_of(problems, results)
        asked = {name: problems[name] for name in llava}
        expert, again = _expert_answers(options, asked, llava)
        out["ensembles"] = ensembles.ensembles(asked, expert, llava, again)
        scores |= {f"{name} (strict)": row for name, row in out["ensembles"]["rows"].items() if name != "LLaVA"}
    return out, "\n".join(_scienceqa_lines(out, scores)), bool(out["excluded"])


def _scienceqa_lines(out: dict, scores: dict[str, dict]) -> list[str]:
    columns = list(out["strict"])
    rows = [["", *("All" if c == "Avg" else c for c in columns), "right"]]
    for what, found in scores.items():
        right = f"{found['Avg']['right']:,} of {found['Avg']['questions']:,}"
        rows.append([what, *(f"{found[c]['accuracy']:.2f}" for c in columns), right])
    lines = [f"{out['questions']:,} questions answered", aligned(rows)]
    if "ensembles" in out:
        lines += [f"{name}: {b['accuracy']:.2f}" for name, b in out["ensembles"]["bounds"].items()]
        lines += [f"{name}: {n:,}" for name, n in out["ensembles"]["counts"].items()]
    failed = [f"problem {name}: {why}" for name, why in out["failures"].items()]
    lines += _counted(failed, "answers without a letter that can be read, counted as wrong")
    if "differ" in out:
        differ = []
        for name, d in out["differ"].items():
            verdict = "right" if d["stored"] == d["right"] else "wrong"
            said = d["why"] or "says " + chr(65 + d["read"])
            differ.append(f"problem {name}: index {d['stored']}, a guess that is {verdict}; the text {said}")
        lines += _counted(differ, "of the file's own indices are not what its text says")
    return lines + left_out(out["excluded"])


def _counted(lines: list[str], what: str) -> list[str]:
    """How many there are of something, then the first of them."""
    return [f"{len(lines):,} {what}:", listed(lines, MOST_LISTED)] if lines else [f"0 {what}"]


def judge_pope(options) -> Found:
    """Accuracy, precision, recall, F1 and yes-rate of yes-or-no answers, by kind of negatives."""
    questions = pope.read_questions(options.questions)
    out = pope.evaluate(questions, read_jsonl(options.answers))
    measures, scores = ("accuracy", "precision", "recall", "f1", "yes"), dict(out["scores"])
    for path in options.controls:
        found = pope.evaluate(questions, read_jsonl(path))
        scores |= {f"{path.stem}, {c}": s for c, s in found["scores"].items() if c == "all"}
        out.setdefault("controls", {})[path.stem] = found["scores"]
        out["excluded"] += [f"{path.stem}, {e}" for e in found["excluded"]]
    rows = [["", *measures[:-1], "said yes", "questions"]]
    rows += [[name, *(f"{s[m]:.2f}" for m in measures), str(s["questions"])] for name, s in scores.items()]
    lines = [aligned(rows)]
    if (found := out.get("authors")) and found != out["scores"].get("all"):
        read = f"accuracy {found['accuracy']:.2f}, f1 {found['f1']:.2f}, said yes {found['yes']:.2f}"
        lines.append(f"By the authors' rule, yes unless the first sentence has no or not: {read}")
    return out, "\n".join([*lines, *left_out(out["excluded"])]), bool(out["excluded"])


def _client(options, model: str):
    from minillava.asking.client import Client  # imports openai

    return Client(model, options.base_url, options.timeout)


def _money(options, model: str) -> dict:
    if options.max_tokens is not None and options.max_tokens < 1:
        raise FileError(f"--max-tokens {options.max_tokens}: at least 1 is needed")
    limit = {} if options.max_tokens is None else {"max_tokens": options.max_tokens}
    terms = {"price": price_of(model, options.price), "yes": options.yes, "concurrency": options.concurrency}
    return {"budget": Budget(options.budget), **terms, **limit}


def _judge(options, client=None):
    if options.judge == OFFLINE:
        return OfflineJudge()
    client, rules = client or _client(options, options.judge), read_rules(options.rule) if options.rule else RULES
    return ApiJudge(client, options.out / "replies", rules, **_money(options, options.judge))


def judge_quality(options) -> Found:
    """How often a judge puts answers that were made worse on purpose below the original ones, and what it misses."""
    if options.judge != OFFLINE and not options.out:
        raise FileError(f"--judge {options.judge} needs --out, a folder for its replies")
    if options.scenes < 1:
        raise FileError(f"--scenes {options.scenes}: at least 1 is needed")
    rows = quality.measure_judge(_judge(options), build_bench("coco", options.scenes))
    ways = [vars(r) | {"share": r.share} for r in rows]
    out = {"judge": options.judge, "better first": quality.overall_share(rows), "ways": ways}
    return out, quality.quality_table(rows), False


def _dry_run(options, cases, controls, excluded) -> Found:
    judge = _judge(options, client=SimpleNamespace(model=options.judge))  # needs no key
    (known, without_rubric), (known_controls, also_without) = judge.split(cases), judge.split(controls)
    bodies = [judge.body(case, run) for run in range(options.runs) for case in known]
    bodies += [*map(judge.body, known_controls)]
    excluded = excluded + without_rubric + also_without
    messages = bodies[0]["messages"] if bodies else []
    cost = f"{estimate_cost(bodies, price_of(options.judge, options.price), reply=250)}; nothing was sent"
    out = {"messages": messages, "estimate": cost, "excluded": [vars(e) for e in excluded]}
    lines = [f"--- {m['role']}\n{m['content']}" for m in messages] + ["---", cost, *left_out(excluded)]
    return out, "\n".join(lines), bool(excluded)


def judge_bench(options) -> Found:
    """Reviews of a file of answers by a judge, written to --out, and their relative score. The same command resumes."""
    paths = (options.questions, options.context, options.reference)
    if options.bench:
        paths = [options.bench / f"{name}.jsonl" for name in ("questions", "context", "reference")]
    if not all(paths):
        raise FileError("name the benchmark: --bench FOLDER, or --questions, --context and --reference")
    items = load_bench(*paths)
    cases, excluded = match_answers(items, read_jsonl(options.answers), options.answers)
    asked = both_orders(cases) if options.both_orders else cases
    if options.runs < 1:
        raise FileError(f"--runs {options.runs}: at least 1 is needed")
    controls, unmatched = read_controls(items, options.controls)
    excluded += unmatched
    if options.dry_run and options.judge != OFFLINE:
        return _dry_run(options, asked, [case for some in controls.values() for case in some], excluded)
    options.out.mkdir(parents=True, exist_ok=True)
    judge = _judge(options)
    runs = judge.review(asked, options.runs)
    control_scores, unjudged = judge_controls(judge, controls, options.out)
    excluded += unjudged
    files, stopped = [], runs[-1].stopped
    for run, judged in enumerate(runs, 1):
        excluded += judged.excluded
        path = options.out / (f"reviews-run-{run}.jsonl" if options.runs > 1 else "reviews.jsonl")
        write_jsonl(review_rows(judged), path)
        if judged.texts:
            files.append(reviews.read_reviews(path))
    several = len(files) > 1 and not stopped
    out, lines = _scored(files, f"Over {len(files)} runs of the judge (Table 5, dagger)" if several else "")
    out |= {"words": mean_words(cases), "excluded": [vars(e) for e in excluded], "stopped": stopped}
    if control_scores:
        out["controls"] = control_scores
        table = scores_beside_controls(out["files"], control_scores)
        lines.append(f"Without the right picture, relative score\n{table}")
    lines.append(f"Words: references {out['words']['reference']}, answers {out['words']['candidate']} on average")
    if excluded:
        lines.append("\n".join(left_out(excluded)))
    if stopped:
        lines.append(f"Not everything was asked: {stopped}")
    return out, "\n\n".join(lines), bool(excluded or stopped or any(f.excluded for f in files))


def left_out(excluded: list) -> list[str]:
    """What was left out, as lines for the terminal; `--json` has all of it."""
    return [f"Left out, {len(excluded):,}:", listed(excluded, MOST_LISTED)] if excluded else []


def _scored(files: list[reviews.Reviews], over_runs: str = "") -> tuple[dict, list[str]]:
    """The scores of files of reviews as JSON and as text. over_runs: a title for their mean and spread as well."""
    out = {"files": [summary(f) for f in files]}
    lines = [summary_text(s, f.excluded) for s, f in zip(out["files"], files)]
    if over_runs:
        out["runs"] = reviews.spread_over_runs([f.used for f in files])
        rows = [[name, f"{v['mean']:.1f}", f"{v['std']:.1f}", str(v["questions"])] for name, v in out["runs"].items()]
        lines.append(f"{over_runs}\n{aligned([['', 'mean', 'std', 'questions'], *rows])}")
    return out, lines


def summary(file: reviews.Reviews) -> dict:
    """A file of reviews as JSON: scores, what was left out, and what being first is worth."""
    bias = reviews.position_bias(file.used)
    return {
        "file": str(file.path),
        "judges": sorted({r.judge for r in file.used if r.judge}),
        "used": len(file.used),
        "excluded": [vars(e) for e in file.excluded],
        "noticed": file.noticed,
        "scores": reviews.relative_scores(file.used),
        **({"position": bias} if bias else {}),
    }


def summary_text(summary: dict, excluded: list[Excluded]) -> str:
    """A `summary` for the terminal."""
    rows = [["", "relative score", "95 % interval", "reference", "candidate", "questions"]]
    for name, s in summary["scores"].items():
        low, high = s["interval"]
        means = [f"{s['reference']:.2f}", f"{s['candidate']:.2f}"]
        rows.append([name, f"{s['relative']:.1f}", f"{low:.1f} to {high:.1f}", *means, str(s["questions"])])
    judges = ", ".join(summary["judges"]) or "not named"
    lines = [f"{summary['file']}: {summary['used']} reviews used, {len(excluded)} left out; judge: {judges}"]
    lines.append(aligned(rows))
    if bias := summary.get("position"):
        share = f"{bias['turned']:.0f} % of {bias['questions']} questions"
        lines.append(f"Being first is worth {bias['points']:+.2f} points; the order changes the verdict in {share}.")
    return "\n".join([*lines, *summary["noticed"], *left_out(excluded)])


def scores_beside_controls(files: list[dict], controls: dict[str, dict]) -> str:
    """The relative score by category, of the judged files (their `summary`) and then of each control."""
    scored = [(f["file"], f["scores"]) for f in files] + list(controls.items())
    categories = list(scored[0][1]) if scored else []
    rows = [["", *categories]]
    for name, scores in scored:
        rows.append([name, *(f"{scores[c]['relative']:.1f}" if c in scores else "-" for c in categories)])
    return aligned(rows)
