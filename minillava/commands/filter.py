"""`minillava filter`: the caption filter of Appendix E, which keeps captions that cover all concepts evenly.

minillava filter captions.tsv --out runs/filtered
"""

import json
import sys
from pathlib import Path

from minillava.commands import MOST_LISTED
from minillava.datagen import concepts
from minillava.datagen.generate import SUMMARY
from minillava.text import listed


def arguments(parser) -> None:
    add = parser.add_argument
    add("captions", type=Path, help="a .txt (one caption per line), .tsv (CC3M's), .csv, or .json of records")
    add("--out", type=Path, required=True)
    add("--least", type=int, default=concepts.RARE_BELOW, help="skip rarer phrases (default, the paper's: %(default)s)")
    add("--most", type=int, default=concepts.COMMON_ABOVE, help="draws per phrase (default, the paper's: %(default)s)")
    add("--seed", type=int, default=0)
    add("--chunker", default="auto", help="spacy, rules, or auto: spaCy if it is installed (default)")
    add("--keep-case", action="store_true", help="compare phrases as they are written")
    add("--determiners", action="store_true", help="count `a dog` and `the dog` as two phrases")
    add("--occurrences", action="store_true", help="count every occurrence of a phrase, not once per caption")
    add("--pooled", action="store_true", help="captions that rarer phrases brought in count toward --most")


def run(options) -> int:
    """Write the captions that cover all concepts evenly, and the figures behind Fig. 7."""
    from minillava.figures.data import concept_figure  # matplotlib takes a while

    out = options.out
    captions, raw, problems = concepts.read_captions(options.captions)
    if problems:
        print(f"left out, {len(problems):,}:\n{listed(problems, MOST_LISTED)}", file=sys.stderr)
    found = concepts.concept_filter(
        captions, options.least, options.most, options.seed, options.chunker, not options.keep_case,
        options.determiners, options.occurrences, options.pooled, progress=True,
    )  # fmt: skip
    if not found.before:
        what = f"no noun phrase in its {found.captions:,} captions, so there is nothing to keep"
        raise concepts.CaptionError(f"{options.captions}: {what}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        concepts.write_captions([raw[i] for i in found.kept], out / f"captions{options.captions.suffix}")
        concepts.write_phrases(found, out / "phrases.tsv")
        counts = found.counts() | {"left out": len(problems), "chunker": found.chunker}
        (out / SUMMARY).write_text(json.dumps(counts | {"problems": problems}, indent=1) + "\n", encoding="utf-8")
        concept_figure(found, options.least, options.most).savefig(out / "phrases.png")
    except OSError as error:
        raise concepts.CaptionError(f"{out}: cannot be written to ({error.strerror})") from error
    print("\n".join(f"{name}: {n:,}" if isinstance(n, int) else f"{name}: {n}" for name, n in counts.items()))
    print(f"written to {out}: captions{options.captions.suffix}, phrases.tsv, phrases.png, {SUMMARY}")
    return 1 if problems else 0
