"""Caption images with what train_qwen2_vl.py has trained: one's own, or that of the first test row.

python predict_qwen2_vl.py
python predict_qwen2_vl.py photo.jpg other.png
python predict_qwen2_vl.py photo.jpg --run output/Qwen2-VL-2B/checkpoint-50
"""

import argparse
import json
import sys
from pathlib import Path

import weitiao


def main() -> None:
    parser = argparse.ArgumentParser(description="Caption images with the model that train_qwen2_vl.py has trained.")
    parser.add_argument("images", nargs="*", help="image files; by default that of the first test row")
    parser.add_argument("--run", default="output/Qwen2-VL-2B", help="a run (its best adapter) or checkpoint folder")
    told = parser.parse_args()
    model = weitiao.load(told.run)
    # Rows name images by paths below a folder; here that of each image itself.
    for path in [Path(image).resolve() for image in told.images]:
        (answer,) = model.predict([{"image": path.name}], images=path.parent)
        print(f"{path.name}: {answer.answer!r}")
    if not told.images:
        row = first_test_row(Path(told.run))
        (answer,) = model.predict([row])
        print(f"{row['id']}: {answer.answer!r}, wanted {row['reference']!r}")


def first_test_row(run: Path) -> dict[str, object]:
    path = next((path for folder in (run, run.parent) if (path := folder / "predictions.jsonl").is_file()), None)
    if path is None:
        sys.exit(f"{run} has no predictions.jsonl, whose first row would be answered; name an image")
    with path.open(encoding="utf-8") as file:
        return json.loads(next(file))


if __name__ == "__main__":
    try:
        main()
    except weitiao.WeitiaoError as error:  # one line that says what to do
        sys.exit(str(error))
