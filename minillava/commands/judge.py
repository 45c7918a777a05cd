"""`minillava judge`: its verbs and their arguments; judge_verbs.py does the work.

The status is 0 if everything was used, 1 if something was left out, 2 if nothing could be done. `--json` prints
everything as one JSON value.

    minillava judge bench --help
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from minillava.commands import judge_verbs
from minillava.text import printable


def _judge_arguments(parser) -> None:
    add = parser.add_argument
    add("--judge", default=judge_verbs.OFFLINE, help="`offline`, or a model behind an OpenAI-compatible API")
    add("--rule", type=Path, help="rubrics in rule.json's format (default: this project's own)")


def _control_arguments(parser) -> None:
    parser.add_argument(
        "--controls", type=Path, nargs="+", default=[], metavar="FILE",
        help="the same model's answers without the right picture (`minillava answer --look`), scored as well",
    )  # fmt: skip


def _api_arguments(parser) -> None:
    add = parser.add_argument
    add("--base-url", help="where the API is (default: OPENAI_BASE_URL, else OpenAI)")
    add("--budget", type=float, metavar="USD", help="spend at most this, over all runs in this folder")
    add("--price", metavar="PROMPT,COMPLETION", help="dollars per million tokens, for a model without a known price")
    add("--concurrency", type=int, default=16, help="requests at a time")
    add("--timeout", type=float, default=120.0, help="seconds for one reply (default: 120)")
    add("--max-tokens", type=int, help="the longest reply, reasoning included (default: 1024; scienceqa: 512)")
    add("--yes", action="store_true", help="do not ask before sending")


def arguments(parser) -> None:
    """Declare the verbs below `judge`; each sets `do`, which `run` calls."""
    verbs = parser.add_subparsers(dest="what", required=True)

    def verb(name: str, do, what: str):
        out = verbs.add_parser(name, help=what, description=do.__doc__)
        out.add_argument("--json", action="store_true", help="print one JSON value")
        out.set_defaults(do=do)
        return out, out.add_argument

    _, add = verb("reviews", judge_verbs.judge_reviews, "relative scores of files of reviews")
    add("files", type=Path, nargs="+", metavar="FILE", help="reviews, JSONL, the authors' or this project's")
    add("--runs", action="store_true", help="the files are several runs: mean and standard deviation")
    add("--agree", action="store_true", help="the two files are of two judges: their rank correlation")

    one, add = verb("scienceqa", judge_verbs.judge_scienceqa, "ScienceQA accuracy (Table 7)")
    add("results", type=Path, help="the authors' results JSON, or answers JSONL")
    add("labels", type=Path, help="llava_test_CQM-A.json, problems.json (with pid_splits.json), or the hub's parquet")
    add("--guess", type=int, metavar="SEED", help="also score as the authors' older script: guess unreadable answers")
    add("--expert", type=Path, help="a text-only expert's answers: also score the complement, and the bounds")
    add("--ask", metavar="MODEL", help="ask this model for the expert's answers that --expert and --again do not give")
    add("--shots", type=Path, help="with --ask: problems.json whose train split gives two solved examples")
    add("--out", type=Path, help="with --ask: a folder for its replies")
    _control_arguments(one)
    _api_arguments(one)
    add("--again", type=Path, help="the expert's second answers, where the two differ: also score the judge")

    one, add = verb("bench", judge_verbs.judge_bench, "reviews of answers by a judge, and their relative score")
    add("--bench", type=Path, help="a folder of questions.jsonl, context.jsonl, reference.jsonl")
    for name in ("questions", "context", "reference"):
        add(f"--{name}", type=Path, help=f"the benchmark's {name}, instead of --bench")
    add("--answers", type=Path, required=True, help="the model's answers, JSONL")
    add("--out", type=Path, required=True, help="a folder for the reviews and the judge's replies")
    _control_arguments(one)
    _judge_arguments(one)
    add("--both-orders", action="store_true", help="judge each question twice, also with the candidate first")
    add("--runs", type=int, default=1, help="ask the judge this many times: mean and standard deviation")
    _api_arguments(one)
    add("--dry-run", action="store_true", help="print the first request and the estimate, send nothing")

    one, add = verb("quality", judge_verbs.judge_quality, "the judge's own quality, on answers made worse on purpose")
    add("--scenes", type=int, default=100, help="of the benchmark; each gives about 20 worse answers")
    add("--out", type=Path, help="with a judge behind an API: a folder for its replies")
    _judge_arguments(one)
    _api_arguments(one)

    one, add = verb("pope", judge_verbs.judge_pope, "hallucination: yes-or-no questions about what is in the picture")
    _control_arguments(one)
    add("answers", type=Path, help="answers, JSONL")
    add("questions", type=Path, nargs="+", help="POPE's questions, and its label files if they are separate")


def run(options) -> int:
    """Do what the chosen verb does, and print it; returns the status."""
    with redirect_stdout(sys.stderr if options.json else sys.stdout):  # an estimate, and the question whether to send
        value, text, left_out = options.do(options)
    print(json.dumps(value, indent=1) if options.json else printable(text))
    return int(left_out)
