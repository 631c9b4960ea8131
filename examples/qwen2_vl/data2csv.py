"""Download the first rows of COCO 2014's captions from ModelScope: an image and a caption each.

    python data2csv.py [ROWS]

Writes coco-2024-dataset.csv (image_path, caption) and the folder coco_2014_caption with the images into the working
directory; and data_vl.json, which csv2json.py makes of any such CSV.
"""

import argparse
import sys
from pathlib import Path

import weitiao
from weitiao.data.fetch import fetch


def main() -> None:
    parser = argparse.ArgumentParser(description="Download captioned images of COCO 2014.")
    parser.add_argument("rows", nargs="?", type=int, default=500, help="how many rows")
    rows = parser.parse_args().rows
    if rows < 1:
        sys.exit(f"{rows} rows: wanted at least 1")
    paths = fetch("coco-caption", Path(), limit=rows)
    beside = [str(path) for path in paths if path.parent == Path()]
    print(f"{len(paths) - len(beside)} images in coco_2014_caption; {', '.join(beside)}")


if __name__ == "__main__":
    try:
        main()
    except weitiao.WeitiaoError as error:  # one line that says what to do
        sys.exit(str(error))
