"""`minillava fetch`: the paper's real data, or a part of it, into a folder that `minillava train` reads.

Notable: nothing is fetched twice; Ctrl-C keeps what is there, and the same command goes on. Missing pictures are counted
and left out with their records, up to a share (--missing) above which nothing is written as complete.

    minillava fetch pretrain --limit 60000 --out data/colab       # stage1.json: 60K of 595K pairs, without the 6.5 GB zip
    minillava fetch instruct --limit 20000 --out data/colab       # stage2.json, into the same images/
    minillava train data/colab --scale colab
"""

from pathlib import Path

from minillava.fetch.hub import shown
from minillava.text import listed


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument(
        "source", choices=("pretrain", "instruct", "scienceqa"), help="data of stage 1, of stage 2, or ScienceQA"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="where stage1.json or stage2.json and images/ go; goes on there"
    )
    parser.add_argument(
        "--part", help="instruct: conversation, detail or complex; scienceqa: train, validation or test"
    )
    parser.add_argument("--limit", type=int, help="so many records, by chance (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of that chance")
    parser.add_argument(
        "--missing", type=float, default=0.02, help="share of pictures that may be missing (default: 0.02)"
    )


def run(options) -> None:
    """Fetch, then say what came and what did not."""
    card = shown(options.source, options.out, options.part, options.limit, options.seed, options.missing)
    print(f"{card['records']:,} records and {card['pictures']:,} pictures of {card['source']} in {options.out}")
    if card["bad records"]:
        print(f"{len(card['bad records']):,} records break the format and are left out:\n{listed(card['bad records'])}")
    if card["missing pictures"]:
        lines = [f"{name}: {why}" for name, why in card["missing pictures"].items()]
        print(f"{len(lines):,} pictures are missing, their records left out:\n{listed(lines)}")
