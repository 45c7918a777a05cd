#!/usr/bin/env bash
# Sphinx 9.0.4: what the search of a Chinese book finds.
# Guess: `language = "zh_CN"` makes Chinese words findable, or says what is missing. Seen: without the package jieba, which
# Sphinx does not install, no Chinese word is in the index, not even a title's, and a build with -W ends with status 0. The
# same page built with `language = "en"` has its Chinese in the index.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check sphinx==9.0.4
cd "$home"
mkdir book
printf '编码器\n======\n\n视觉编码器把图片变成向量。 LLaVA uses CLIP.\n' > book/index.rst
for language in zh_CN en; do
  printf 'project = "book"\nlanguage = "%s"\n' "$language" > book/conf.py
  "$home/venv/bin/python" -m sphinx -q -W -b html -d "cache-$language" book "$language"
  echo "$language: status $?"
done
"$home/venv/bin/python" - <<'P'
import json
import re
from pathlib import Path

import sphinx

print("sphinx", sphinx.__version__)
words = {}
for language in ("zh_CN", "en"):
    text = Path(language, "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", text, re.DOTALL)[1])
    words[language] = sorted([*index["terms"], *index["titleterms"]])
    print(f"{language}: words in the index:", words[language])
chinese = {language: [w for w in some if re.search("[\u4e00-\u9fff]", w)] for language, some in words.items()}
assert chinese["zh_CN"] == [] and "llava" in words["zh_CN"] and chinese["en"], chinese
P
echo "as found: the Chinese setting without jieba indexes no Chinese, and says nothing"
