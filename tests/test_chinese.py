"""README.zh.md says what README.md says, and of the README.md that is here: its hash, numbers, code, links and terms.

Notable: in fenced blocks the remarks are Chinese too, so there the commands and the names of files are compared, and
every number. The line that names the languages and the comment with the hash are left out.
"""

import re
from pathlib import Path

import pytest

from minillava.course.chinese import digest, kept, mismatches, unsaid_terms

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LEFT_OUT = re.compile(r"^(?:English · \[|\[English\]|<!-- README\.md sha256:).*\n", re.MULTILINE)
NAME = re.compile(r"\w[\w/]*(?:/|\.py\b|\.md\b)")  # of a file or folder on the map
HASH = re.compile(r"^<!-- README\.md sha256: (\w+) -->$", re.MULTILINE)


def both():
    """The English README and the Chinese one."""
    return [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]


def stale(english, chinese):
    """What to do when the Chinese README is of another English one; else nothing."""
    if HASH.findall(chinese) != [digest(english)]:
        return f"README.md has changed: bring README.zh.md up to date, then set its sha256 to {digest(english)}"


def commands(text):
    """The fenced blocks line by line, without remarks: whole commands, and of the map the names."""
    lines = [(language, line) for language, block in FENCE.findall(text) for line in block.splitlines()]
    return [line.partition("# ")[0].split() if language else NAME.findall(line) for language, line in lines]


def differences(english, chinese):
    """What the Chinese README lacks or adds."""
    plain = [FENCE.sub(r"\2", LEFT_OUT.sub("", text)) for text in (english, chinese)]
    found = mismatches(*plain) + unsaid_terms(*plain)
    fenced = zip(commands(english), commands(chinese))
    found += [f"fenced: {ours} for {theirs}" for theirs, ours in fenced if ours != theirs]
    if len(commands(english)) != len(commands(chinese)):
        found += ["fenced: more lines in one"]
    return found


def test_the_chinese_readme_is_of_this_english_one():
    problem = stale(*both())
    assert problem is None, problem


def test_the_chinese_readme_has_the_same_numbers_code_and_links():
    english, chinese = both()
    assert differences(english, chinese) == []
    assert len(kept(english)["links"]) > 25 and len(commands(english)) > 40, "it reads too little"


def test_each_readme_names_the_other_below_its_title():
    english, chinese = (text.splitlines()[:5] for text in both())
    assert english[2] == "English · [中文](README.zh.md)"
    assert chinese[2].startswith("[English](README.md) · 中文") and HASH.fullmatch(chinese[4])


ENGLISH = """English · [中文](README.zh.md)

It gets 73.5 % right: `make lab`, [log](LOG.md).

```bash
make demo    # 2 minutes
```

```
model/    Fig. 1: vision.py
```
"""
CHINESE = """[English](README.md) · 中文 · `minillava course zh`
<!-- README.md sha256: 0 -->

答对 73.5 %：`make lab`，[日志](LOG.md)。

```bash
make demo    # 2 分钟
```

```
model/    图 1：vision.py
```
"""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("73.5", "73.6", "lacks numbers: 73.6"),
        ("`make lab`", "`make labs`", "lacks code: `make labs`"),
        ("LOG.md", "LOGS.md", "lacks links: LOGS.md"),
        ("make demo", "make demos", "fenced: ['make', 'demo'] for ['make', 'demos']"),
        ("vision.py", "eye.py", "fenced: ['model/', 'vision.py'] for ['model/', 'eye.py']"),
        ("Fig. 1", "Fig. 12", "lacks numbers: 12"),
        ("# 2 minutes", "# 3 minutes", "lacks numbers: 3"),
        ("vision.py", "vision.py\ntests/", "fenced: more lines in one"),
        ("right", "right of all tokens", "without 词元"),
    ],
)
def test_a_change_of_the_english_is_noticed(old, new, why):
    assert differences(ENGLISH, CHINESE) == [] and old in ENGLISH
    found = differences(ENGLISH.replace(old, new), CHINESE)
    assert any(why in line for line in found), found


def test_an_english_readme_that_has_moved_on_is_named_with_what_to_do():
    english, chinese = both()
    changed = english + "One more sentence.\n"
    assert "bring README.zh.md up to date" in stale(changed, chinese) and digest(changed) in stale(changed, chinese)
    assert stale(english, "no comment") is not None
