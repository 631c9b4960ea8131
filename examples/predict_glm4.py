"""Answer with what train_glm4.py has trained: rows of test.jsonl, or one text with its candidates.

python predict_glm4.py
python predict_glm4.py output/glm-4-9b-chat/checkpoint-100 --rows 20
python predict_glm4.py --text "主队在加时赛中获胜" --category 体育 经济 政治
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import weitiao


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer with the model that train_glm4.py has trained.")
    parser.add_argument("run", nargs="?", default="output/glm-4-9b-chat", help="a run or checkpoint folder")
    parser.add_argument("--text", help="a text to answer, in place of rows of test.jsonl")
    parser.add_argument("--category", nargs="+", default=[], help="the candidates for --text")
    parser.add_argument("--rows", type=int, default=10, help="how many rows of test.jsonl")
    told = parser.parse_args()
    rows = [{"text": told.text, "category": told.category}] if told.text else test_rows(told.rows)
    for row, answer in zip(rows, weitiao.load(told.run).predict(rows), strict=True):
        wanted = f", wanted {row['output']}" if "output" in row else ""
        print(f"{answer.answer} ({answer.probability:.2f}){wanted}: {row['text'][:40]!r}")


def test_rows(count: int) -> list[dict[str, object]]:
    if not Path("test.jsonl").is_file():
        sys.exit("test.jsonl is not here; fetch it with: weitiao data fetch fudan-news --dest .")
    with open("test.jsonl", encoding="utf-8") as file:
        return list(map(json.loads, islice(file, count)))


if __name__ == "__main__":
    try:
        main()
    except weitiao.WeitiaoError as error:  # one line that says what to do
        sys.exit(str(error))
