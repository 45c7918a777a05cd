"""`minillava fetch`: the paper's real data, or a part of it, into a folder that `minillava train` reads.

Nothing is fetched twice; Ctrl-C keeps what was fetched, and the same command resumes. Missing pictures are counted and
left out with their records. If their share is above --missing, the data are not written as complete.

    minillava fetch pretrain --limit 60000 --out data/colab     # stage1.json: 60K of 595K pairs, without the 6.5 GB zip
    minillava fetch instruct --limit 20000 --out data/colab     # stage2.json, into the same images/
    minillava train data/colab --scale colab
"""

from pathlib import Path

from minillava.fetch.hub import fetch_with_bar
from minillava.text import listed


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("source", choices=("pretrain", "instruct", "scienceqa"), help="data of stage 1, of stage 2, or ScienceQA")
    add("--out", type=Path, required=True, help="a folder for stage1.json or stage2.json and images/; resumes there")
    add("--part", help="instruct: conversation, detail or complex; scienceqa: train, validation or test")
    add("--limit", type=int, help="this many records, drawn at random (default: all)")
    add("--seed", type=int, default=0, help="of the random draw")
    add("--revision", help="the dataset's branch, tag or commit on the hub (default: main)")
    add("--missing", type=float, default=0.02, help="share of pictures that may be missing (default: 0.02)")


def run(options) -> None:
    """Fetch, then report what was fetched and what is missing."""
    card = fetch_with_bar(
        options.source, options.out, options.part, options.limit, options.seed, options.missing, options.revision
    )
    print(f"{card['records']:,} records and {card['pictures']:,} pictures of {card['source']} in {options.out}")
    if card["bad records"]:
        print(f"{len(card['bad records']):,} records break the format and are left out:\n{listed(card['bad records'])}")
    if card["missing pictures"]:
        lines = [f"{name}: {why}" for name, why in card["missing pictures"].items()]
        print(f"{len(lines):,} pictures are missing, their records left out:\n{listed(lines)}")
