"""`minillava fetch`: the paper's real data, or a part of it, into a folder that `minillava train` reads.

Notable: nothing is fetched twice; Ctrl-C keeps what is there, and the same command goes on. Missing pictures are counted
and left out with their records, up to a share (--missing) above which nothing is written as complete.

    minillava fetch pretrain --limit 60000 --out data/colab       # stage1.json: 60K of 595K pairs, without the 6.5 GB zip
    minillava fetch instruct --limit 20000 --out data/colab       # stage2.json, into the same images/
    minillava train data/colab --scale colab
"""

from minillava.data.hub import fetch
from minillava.data.valid import listed
from minillava.training.loop import bar


def shown(source: str, out, part=None, limit=None, seed: int = 0, missing: float = 0.02) -> dict:
    """`data.hub.fetch` with a progress bar."""
    with bar(1, "picture") as progress:

        def show(done, total):
            progress.total = total
            progress.update(done - progress.n)

        return fetch(source, out, part, limit, seed, missing, progress=show)


def run(options) -> None:
    """Fetch, then say what came and what did not."""
    card = shown(options.source, options.out, options.part, options.limit, options.seed, options.missing)
    print(f"{card['records']:,} records and {card['pictures']:,} pictures of {card['source']} in {options.out}")
    if card["bad records"]:
        print(f"{len(card['bad records']):,} records break the format and are left out:\n{listed(card['bad records'])}")
    if card["missing pictures"]:
        lines = [f"{name}: {why}" for name, why in card["missing pictures"].items()]
        print(f"{len(lines):,} pictures are missing, their records left out:\n{listed(lines)}")
