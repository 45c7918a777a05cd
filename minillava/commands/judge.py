"""`minillava judge`: its verbs and what each is given; what they do is in judge_verbs.py.

minillava judge bench --help
"""

from pathlib import Path

from minillava.commands.judge_verbs import (
    OFFLINE,
    judge_bench,
    judge_pope,
    judge_quality,
    judge_reviews,
    judge_scienceqa,
)


def _who(one) -> None:
    one.add_argument("--judge", default=OFFLINE, help="`offline`, or a model behind an OpenAI-compatible API, by name")
    one.add_argument("--rule", type=Path, help="rubrics in rule.json's format (default: this project's own)")


def _given_controls(one) -> None:
    one.add_argument("--controls", type=Path, nargs="+", default=[], metavar="FILE",
                     help="the same model's answers without the right picture (`minillava answer --look`), scored beside")  # fmt: skip


def _api(one) -> None:
    one.add_argument("--base-url", help="where the API is (default: OPENAI_BASE_URL, else OpenAI)")
    one.add_argument("--budget", type=float, metavar="USD", help="spend at most this, all runs of this folder together")
    one.add_argument(
        "--price", metavar="PROMPT,COMPLETION", help="dollars a million tokens, for a model without a known price"
    )
    one.add_argument("--concurrency", type=int, default=16, help="requests at a time")
    one.add_argument("--yes", action="store_true", help="do not ask before sending")


def arguments(parser) -> None:
    """Declare the verbs below `judge`; each sets `do`, which `run` calls."""
    verbs = parser.add_subparsers(dest="what", required=True)

    def verb(name: str, do, what: str):
        out = verbs.add_parser(name, help=what, description=do.__doc__)
        out.add_argument("--json", action="store_true", help="print one JSON value")
        out.set_defaults(do=do)
        return out

    one = verb("reviews", judge_reviews, "relative scores of files of reviews")
    one.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="reviews, JSONL, the authors' or this project's"
    )
    one.add_argument("--runs", action="store_true", help="the files are several runs: mean and standard deviation")
    one.add_argument("--agree", action="store_true", help="the two files are two judges: their rank correlation")

    one = verb("scienceqa", judge_scienceqa, "ScienceQA accuracy (Table 7)")
    one.add_argument("results", type=Path, help="the authors' results JSON, or answers JSONL")
    one.add_argument(
        "labels", type=Path, help="llava_test_CQM-A.json, problems.json (with pid_splits.json), or the hub's parquet"
    )
    one.add_argument(
        "--guess", type=int, metavar="SEED", help="also score the authors' older way: guess where nothing can be read"
    )
    one.add_argument("--expert", type=Path, help="a text-only expert's answers: also the complement, and the bounds")
    one.add_argument(
        "--ask", metavar="MODEL", help="ask this model for the expert's answers that --expert and --again do not give"
    )
    one.add_argument("--shots", type=Path, help="with --ask: problems.json whose train split gives two solved examples")
    one.add_argument("--out", type=Path, help="with --ask: a folder for what it replies")
    _given_controls(one)
    _api(one)
    one.add_argument("--again", type=Path, help="the expert's second answers, where the two differ: also the judge")

    one = verb("bench", judge_bench, "reviews of answers by a judge, and their relative score")
    one.add_argument("--bench", type=Path, help="a folder of questions.jsonl, context.jsonl, reference.jsonl")
    for name in ("questions", "context", "reference"):
        one.add_argument(f"--{name}", type=Path, help=f"the benchmark's {name}, instead of --bench")
    one.add_argument("--answers", type=Path, required=True, help="the model's answers, JSONL")
    one.add_argument("--out", type=Path, required=True, help="a folder for reviews and for what the judge replied")
    _given_controls(one)
    _who(one)
    one.add_argument(
        "--both-orders", action="store_true", help="judge each question twice, the candidate first as well"
    )
    one.add_argument("--runs", type=int, default=1, help="ask the judge so often: mean and standard deviation")
    _api(one)
    one.add_argument("--dry-run", action="store_true", help="print the first request and the estimate, send nothing")

    one = verb("quality", judge_quality, "the judge's own quality, on answers spoilt on purpose")
    one.add_argument("--scenes", type=int, default=100, help="of the benchmark; each gives some 20 spoilt answers")
    one.add_argument("--out", type=Path, help="with a judge behind an API: a folder for what it replies")
    _who(one)
    _api(one)

    one = verb("pope", judge_pope, "hallucination: yes-or-no questions about what is there")
    _given_controls(one)
    one.add_argument("answers", type=Path, help="answers, JSONL")
    one.add_argument(
        "questions", type=Path, nargs="+", help="POPE's questions, and its label files where they are apart"
    )


def run(options) -> int:
    """Do what the chosen verb does; returns the status."""
    return options.do(options)
