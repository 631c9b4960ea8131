"""Rows of image_path and caption as conversations, the form in which Qwen2-VL's own tools read them.

    python csv2json.py

Reads coco-2024-dataset.csv in the working directory, writes data_vl.json:

    [{"id": "identity_1", "conversations": [
        {"from": "user", "value": "COCO Yes: <|vision_start|>IMAGE_PATH<|vision_end|>"},
        {"from": "assistant", "value": "CAPTION"}]}, …]
"""

import csv
import json
import sys
from pathlib import Path

SOURCE, TARGET = Path("coco-2024-dataset.csv"), Path("data_vl.json")
QUESTION = "COCO Yes: <|vision_start|>{}<|vision_end|>"


def conversation(number: int, image: str, caption: str) -> dict[str, object]:
    asked = {"from": "user", "value": QUESTION.format(image)}
    return {"id": f"identity_{number}", "conversations": [asked, {"from": "assistant", "value": caption}]}


def main() -> None:
    if not SOURCE.is_file():
        sys.exit(f"{SOURCE} is not here; fetch it with: weitiao data fetch coco-caption --dest .")
    with SOURCE.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        if not {"image_path", "caption"} <= {*(table.fieldnames or ())}:
            sys.exit(f"{SOURCE}: wanted columns image_path and caption, found {', '.join(table.fieldnames or ())}")
        found = [conversation(number, row["image_path"], row["caption"]) for number, row in enumerate(table, 1)]
    TARGET.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", "utf-8")
    print(f"{len(found)} rows in {TARGET}")


if __name__ == "__main__":
    main()
