"""`minillava judge`: scores from files of reviews, ScienceQA answers and yes-or-no answers, and reviews from answers.

Notable: nothing here needs torch, so it starts at once. Every verb prints what it used, what it left out and why; the
status is 0 where everything was used, 1 where something was left out, 2 where nothing could be done. `--json` prints the
same as one JSON value. What a judge behind an API has answered is kept in the folder of `--out` and never asked again.

    minillava judge reviews reviews.jsonl
"""

import json
import sys
from contextlib import redirect_stdout

from minillava.asking import Budget, estimate_cost, price_of
from minillava.commands.judge_report import SHOWN, by_control, left_out, shown, spread, summary
from minillava.data.scienceqa import read_labels
from minillava.files import FileError, read_jsonl, write_jsonl
from minillava.judging import ensembles, pope, scienceqa
from minillava.judging.bench import load_bench
from minillava.judging.controls import judge_controls, read_controls
from minillava.judging.judges import ApiJudge, both_orders, match_answers, mean_words, review_rows
from minillava.judging.reviews import agreement, read_reviews, spread_over_runs
from minillava.judging.rubric import RULES, read_rules
from minillava.standins import quality
from minillava.standins.bench import build
from minillava.standins.judge import OfflineJudge
from minillava.text import aligned, printable

OFFLINE = "offline"


def _say(options, value: dict, text: str) -> None:
    print(json.dumps(value, indent=1) if options.json else printable(text))


def judge_reviews(options) -> int:
    """Relative scores of files of reviews; with --runs their mean and spread, with --agree how far two judges agree."""
    files = [read_reviews(path) for path in options.files]
    out = {"files": [summary(f) for f in files]}
    lines = [shown(s, f.excluded) for s, f in zip(out["files"], files)]
    if options.runs:
        out["runs"] = spread_over_runs([f.used for f in files])
        lines.append(spread(out["runs"], f"Over {len(files)} runs"))
    if options.agree:
        if len(files) != 2:
            raise FileError(f"--agree compares two judges: give two files, not {len(files)}")
        out["agreement"] = agreement(*(f.used for f in files))
        name = lambda v: "none (a judge gave everybody the same)" if v is None else f"{v:.3f}"  # noqa: E731
        lines.append(f"Rank correlation over {out['agreement']['questions']} questions: the candidate's score {name(out['agreement']['candidate'])}, its lead over the reference {name(out['agreement']['lead'])}")  # fmt: skip
    _say(options, out, "\n\n".join(lines))
    return int(any(f.excluded for f in files))


def _expert(options, problems, llava) -> tuple[dict[str, str], dict[str, str] | None]:
    """The text-only expert's answers, and its second ones: from files, or asked for and written to --out."""
    expert = scienceqa.read_results(options.expert).texts if options.expert else None
    again = scienceqa.read_results(options.again).texts if options.again else None
    if options.ask:
        if not options.out:
            raise FileError("--ask needs --out, a folder for what the expert replies")
        from minillava.judging.api_expert import ApiExpert

        shots = (
            [p for p in read_labels(options.shots, "train").values() if p.id not in problems] if options.shots else []
        )
        with redirect_stdout(sys.stderr if options.json else sys.stdout):
            asked = ApiExpert(
                _client(options, options.ask), options.out / "replies", shots, **_money(options, options.ask)
            )
            expert = expert or asked.answers(problems)
            again = again or asked.again(problems, expert, llava)
        for name, texts in (("expert", expert), ("again", again)):
            write_jsonl(
                [{"question_id": n, "text": t, "model_id": options.ask} for n, t in texts.items()],
                options.out / f"{name}.jsonl",
            )
    return expert, again


def judge_scienceqa(options) -> int:
    """ScienceQA accuracy in Table 7's columns, parse failures and guesses; with --expert also the two ensembles."""
    problems, results = read_labels(options.labels), scienceqa.read_results(options.results)
    out = scienceqa.evaluate(problems, results, options.guess)
    ways = {
        "strict": "read strictly",
        "stored": "as the file's own indices",
        "guessed": f"guessed, seed {options.guess}",
    }
    tables = {what: out[key] for key, what in ways.items() if key in out}
    lines = [f"{out['questions']:,} questions answered"]
    for path in options.controls:
        found = scienceqa.evaluate(problems, scienceqa.read_results(path))
        tables[path.stem] = out.setdefault("controls", {})[path.stem] = found["strict"]
        out["excluded"] += [f"{path.stem}, {e}" for e in found["excluded"]]
    if options.expert or options.ask:
        asked = {name: p for name, p in problems.items() if name in results.texts}
        expert, again = _expert(options, asked, results.texts)
        out["ensembles"] = ensembles.ensembles(asked, expert, results.texts, again)
        tables |= {f"{name} (strict)": row for name, row in out["ensembles"]["rows"].items() if name != "LLaVA"}
    columns = list(out["strict"])
    rows = [["", *("All" if c == "Avg" else c for c in columns), "right"]]
    rows += [[what, *(f"{t[c]['accuracy']:.2f}" for c in columns), f"{t['Avg']['right']:,} of {t['Avg']['questions']:,}"] for what, t in tables.items()]  # fmt: skip
    lines.append(aligned(rows))
    if "ensembles" in out:
        lines += [f"{name}: {b['accuracy']:.2f}" for name, b in out["ensembles"]["bounds"].items()]
        lines += [f"{name}: {n:,}" for name, n in out["ensembles"]["counts"].items()]
    failed = out["failures"]
    lines.append(f"{len(failed):,} answers without a letter that can be read, counted as wrong" + ":" * bool(failed))
    lines += [f"  problem {name}: {why}" for name, why in list(failed.items())[:SHOWN]]
    if "differ" in out:
        lines.append(f"{len(out['differ']):,} of the file's own indices are not what its text says" + ":" * bool(out["differ"]))  # fmt: skip
        for name, d in list(out["differ"].items())[:SHOWN]:
            verdict = "right" if d["stored"] == d["right"] else "wrong"
            lines.append(f"  problem {name}: index {d['stored']}, a guess that is {verdict}; the text {d['why'] or 'says ' + chr(65 + d['read'])}")  # fmt: skip
    _say(options, out, "\n".join(lines + left_out(out["excluded"])))
    return int(bool(out["excluded"]))


def judge_pope(options) -> int:
    """Accuracy, precision, recall, F1 and yes-rate of yes-or-no answers, by kind of negatives."""
    questions = pope.read_questions(options.questions)
    out = pope.evaluate(questions, read_jsonl(options.answers))
    names, named = ("accuracy", "precision", "recall", "f1", "yes", "questions"), dict(out["scores"])
    for path in options.controls:
        found = pope.evaluate(questions, read_jsonl(path))
        named |= {f"{path.stem}, {c}": s for c, s in found["scores"].items() if c == "all"}
        out.setdefault("controls", {})[path.stem] = found["scores"]
        out["excluded"] += [f"{path.stem}, {e}" for e in found["excluded"]]
    rows = [["", *names[:-2], "said yes", "questions"]]
    rows += [[c, *(f"{s[n]:.2f}" for n in names[:-1]), str(s["questions"])] for c, s in named.items()]
    _say(options, out, "\n".join([aligned(rows), *left_out(out["excluded"])]))
    return int(bool(out["excluded"]))


def _client(options, model: str):
    from minillava.asking.client import Client  # imports openai

    return Client(model, options.base_url)


def _money(options, model: str) -> dict:
    return {"budget": Budget(usd=options.budget), "price": price_of(model, options.price), "yes": options.yes, "concurrency": options.concurrency}  # fmt: skip


def _judge(options):
    if options.judge == OFFLINE:
        return OfflineJudge()
    rules = read_rules(options.rule) if options.rule else RULES
    return ApiJudge(_client(options, options.judge), options.out / "replies", rules, **_money(options, options.judge))


def judge_quality(options) -> int:
    """How often a judge puts answers spoilt on purpose below the unspoilt ones, on the picture book's benchmark; what it misses."""
    if options.judge != OFFLINE and not options.out:
        raise FileError(f"--judge {options.judge} needs --out, a folder for what it replies")
    with redirect_stdout(sys.stderr if options.json else sys.stdout):
        rows = quality.measure(_judge(options), build("coco", options.scenes))
    out = {
        "judge": options.judge,
        "better first": quality.overall(rows),
        "ways": [vars(r) | {"share": r.share} for r in rows],
    }
    _say(options, out, quality.text(rows))
    return 0


class _Nobody:
    """A client that asks nobody: what `--dry-run` needs of one, which takes no key."""

    def __init__(self, model: str):
        self.model = self.endpoint = model


def _dry_run(options, cases, controls, excluded) -> int:
    judge = ApiJudge(_Nobody(options.judge), options.out, read_rules(options.rule) if options.rule else RULES)
    (known, more), (beside, also) = judge.split(cases), judge.split(controls)
    bodies = [judge.body(case, run) for run in range(options.runs) for case in known] + [*map(judge.body, beside)]
    more += also
    for message in bodies[0]["messages"] if bodies else ():
        print(printable(f"--- {message['role']}\n{message['content']}"))
    print(f"---\n{estimate_cost(bodies, price_of(options.judge, options.price), reply=250)}; nothing was sent")
    print(printable("\n".join(left_out(excluded + more))))
    return int(bool(excluded + more))


def judge_bench(options) -> int:
    """Reviews of a file of answers by a judge, written to --out, and their relative score. The same command goes on."""
    named = (options.questions, options.context, options.reference)
    if options.bench:
        named = [options.bench / f"{name}.jsonl" for name in ("questions", "context", "reference")]
    if not all(named):
        raise FileError("name the benchmark: --bench FOLDER, or --questions, --context and --reference")
    items = load_bench(*named)
    cases, excluded = match_answers(items, read_jsonl(options.answers), options.answers)
    asked = both_orders(cases) if options.both_orders else cases
    if options.runs < 1:
        raise FileError(f"--runs {options.runs}: at least 1 is needed")
    controls, bad = read_controls(items, options.controls)
    excluded += bad
    if options.dry_run and options.judge != OFFLINE:
        return _dry_run(options, asked, [case for some in controls.values() for case in some], excluded)
    options.out.mkdir(parents=True, exist_ok=True)
    files = []
    with redirect_stdout(sys.stderr if options.json else sys.stdout):  # the estimate and the question whether to send
        judge = _judge(options)
        runs = judge.review(asked, options.runs)
        beside, bad = judge_controls(judge, controls, options.out)
    excluded += bad
    for run, judged in enumerate(runs, 1):
        excluded += judged.excluded
        stopped = judged.stopped
        path = options.out / (f"reviews-run-{run}.jsonl" if options.runs > 1 else "reviews.jsonl")
        write_jsonl(review_rows(judged), path)
        if judged.texts:
            files.append(read_reviews(path))
    out = {"files": [summary(f) for f in files], "words": mean_words(cases), "excluded": [vars(e) for e in excluded], "stopped": stopped}  # fmt: skip
    lines = [shown(s, f.excluded) for s, f in zip(out["files"], files)]
    if len(files) > 1 and not stopped:
        out["runs"] = spread_over_runs([f.used for f in files])
        lines.append(spread(out["runs"], f"Over {len(files)} runs of the judge (Table 5, dagger)"))
    if beside:
        out["controls"] = beside
        lines.append("\n".join(["Without the right picture, relative score", *by_control(out["files"], beside)]))
    lines.append(f"Words: references {out['words']['reference']}, answers {out['words']['candidate']} on average")
    lines += ["\n".join(left_out(excluded))] * bool(excluded) + [f"Not everything was asked: {stopped}"] * bool(stopped)
    _say(options, out, "\n\n".join(lines))
    return int(bool(excluded or stopped or any(f.excluded for f in files)))
