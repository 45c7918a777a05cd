"""`minillava filter`: Appendix E on the command line: captions that cover all concepts evenly.

minillava filter captions.tsv --out runs/filtered
"""

import json
import sys
from pathlib import Path

from minillava.datagen.concepts import (
    COMMON_ABOVE,
    RARE_BELOW,
    CaptionError,
    concept_filter,
    read_captions,
    write_captions,
    write_phrases,
)
from minillava.datagen.generate import SUMMARY
from minillava.text import listed

SHOWN = 20  # problems on the terminal; the summary has all


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument(
        "captions", type=Path, help="a .txt (a caption a line), .tsv (CC3M's), .csv, or .json of records"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--least", type=int, default=RARE_BELOW, help="skip phrases that are rarer (default: %(default)s, the paper's)")  # fmt: skip
    parser.add_argument("--most", type=int, default=COMMON_ABOVE, help="draw this many captions of a phrase that has more (default: %(default)s, the paper's)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--chunker", default="auto", help="spacy, rules, or auto: spaCy where it is installed (default)"
    )
    parser.add_argument("--keep-case", action="store_true", help="compare phrases as they are written")
    parser.add_argument("--determiners", action="store_true", help="`a dog` and `the dog` are two phrases")
    parser.add_argument(
        "--occurrences", action="store_true", help="count a phrase as often as it occurs, not once a caption"
    )
    parser.add_argument(
        "--pooled", action="store_true", help="captions that rarer phrases brought in count toward --most"
    )


def run(options) -> int:
    """Captions to the captions that cover all concepts evenly, with the figures behind Fig. 7."""
    from minillava.figures.data import concept_figure  # matplotlib takes a while

    out = Path(options.out)
    captions, raw, problems = read_captions(options.captions)
    if problems:
        print(f"left out, {len(problems):,}:\n{listed(problems, SHOWN)}", file=sys.stderr)
    concepts = concept_filter(
        captions, options.least, options.most, options.seed, options.chunker, not options.keep_case, options.determiners,
        options.occurrences, options.pooled, progress=True,
    )  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_captions([raw[i] for i in concepts.kept], out / f"captions{options.captions.suffix}")
        write_phrases(concepts, out / "phrases.tsv")
        counts = concepts.counts() | {"left out": len(problems), "chunker": concepts.chunker}
        (out / SUMMARY).write_text(json.dumps(counts | {"problems": problems}, indent=1) + "\n")
        concept_figure(concepts, options.least, options.most).savefig(out / "phrases.png")
    except OSError as error:
        raise CaptionError(f"{out}: cannot be written to ({error.strerror})") from error
    print("\n".join(f"{name}: {n:,}" if isinstance(n, int) else f"{name}: {n}" for name, n in counts.items()))
    print(f"written to {out}: captions{options.captions.suffix}, phrases.tsv, phrases.png, {SUMMARY}")
    return 1 if problems else 0
