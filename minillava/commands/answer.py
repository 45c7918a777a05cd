"""`minillava answer`: a trained LLaVA answers a file of questions, as `minillava judge` reads them (section 5).

Questions are the authors' files: LLaVA-Bench, POPE, or with --format ScienceQA's problems. The answers have their
format too. A stopped run resumes. --look gives the controls: every picture is blank, another question's, or left out; and the
other order of Eq. 2: the picture after a question of a chat, before one of ScienceQA.

    minillava answer data_samples/bench/coco/questions.jsonl --images data_samples/bench/coco/images --out answers.jsonl
"""

from pathlib import Path

from minillava import scales
from minillava.chat import Chat, device_and_dtype
from minillava.commands import add_device
from minillava.data.scienceqa import FORMATS
from minillava.files import FileError
from minillava.judging.answer_files import PICTURES_SHOWN, AnswerSettings, read_question_file, write_answers
from minillava.judging.answer_scienceqa import AUTHORS_JOINT, TRAINED_JOINT

ANSWER, REASONS = 120, 1024  # the longest answer in tokens; of ScienceQA's reasons, the authors' number


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("questions", type=Path, help="JSONL; with --format ScienceQA's problems.json, folder or parquet")
    add("--images", type=Path, required=True, help="the folder of the pictures")
    add("--out", type=Path, required=True, help="a JSONL of answers; a stopped run resumes there")
    add("--weights", default=scales.WEIGHTS / "llava", help="a trained LLaVA: a folder, a hub id or id@revision")
    add("--template", help="the conversation's format: chat, chat_v1, plain, vicuna_v1 or own (default: the weights')")
    add(
        "--look",
        choices=tuple(PICTURES_SHOWN),
        default="picture",
        help="which picture is shown; other-order: on the other side of the question",
    )
    add("--format", choices=FORMATS, help="ScienceQA: the format that the weights were trained on")
    add("--authors-joint", action="store_true", help="QCM-LEPA: between the two steps put the authors' script's text")
    add("--split", default="test", help="ScienceQA: train, val or test (default: test)")
    add("--limit", type=int, help="only this many questions, the first")
    add("--batch", type=int, default=32, help="questions at a time (default: 32)")
    add("--max-new-tokens", type=int, help=f"the longest answer (default: {ANSWER}; ScienceQA's reasons: {REASONS})")
    add_device(add)
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)")


def run(options) -> None:
    """Answers to a file of questions, in the authors' format, by a trained LLaVA. The same command resumes."""
    if options.limit is not None and options.limit < 1:
        raise FileError(f"--limit {options.limit}: at least 1 is needed")
    questions = read_question_file(options.questions, bool(options.format), options.split)[: options.limit]
    most = (REASONS if options.format else ANSWER) if options.max_new_tokens is None else options.max_new_tokens
    if options.batch < 1 or most < 1:
        raise FileError("--batch and --max-new-tokens must be at least 1")
    if options.authors_joint and options.format != "QCM-LEPA":
        raise FileError("--authors-joint is for --format QCM-LEPA; the other formats have only one step")
    joint = AUTHORS_JOINT if options.authors_joint else TRAINED_JOINT
    chat = Chat(options.weights, options.template, *device_and_dtype(options.dtype, options.device))
    name = options.weights if isinstance(options.weights, str) else options.weights.name
    made = write_answers(
        chat.model, chat.tokenizer, chat.template, chat.preparation, questions, options.images, options.out, name,
        AnswerSettings(options.look, options.format, most, options.batch, joint),
    )  # fmt: skip
    without = sum(not q.image for q in questions)
    more = f"; {without:,} of the questions have no picture" if without else ""
    print(f"{options.out}: {len(questions):,} answers, {made:,} of them made now, shown: {options.look}{more}")
