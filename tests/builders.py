"""Small data sets and rows that several test files build."""

import json
import pickle

import pytest
from PIL import Image

SIZE = (40, 60)
BOX = [[5, 5, 25, 5, 25, 25, 5, 25]]
OVERLAPPING = [[5, 5, 25, 5, 25, 25, 5, 25], [15, 5, 35, 5, 35, 25, 15, 25]]
CROWD = {"size": [40, 60], "counts": [400, 100, 1900]}
TEXTS = ["the man", "mañ <b>人</b> 😀", "left\u00a0guy"]


def family(split="val"):
    """Two images of train2014, three objects, a reference with several sentences, one with odd text."""
    images = [{"id": i, "file_name": f"x_{i}.jpg", "height": 40, "width": 60} for i in (7, 3)]
    annotations = [
        {"id": 70, "image_id": 7, "category_id": 1, "segmentation": OVERLAPPING, "iscrowd": 0},
        {"id": 71, "image_id": 7, "category_id": 1, "segmentation": CROWD, "iscrowd": 1},
        {"id": 30, "image_id": 3, "category_id": 2, "segmentation": BOX, "iscrowd": 0},
    ]
    instances = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }

    def ref(number, annotation, texts, where=split):
        sentences = [
            {"raw": t.upper(), "sent": t, "sent_id": number * 10 + k, "tokens": t.split()} for k, t in enumerate(texts)
        ]
        return {
            "ref_id": number, "ann_id": annotation, "category_id": 1, "file_name": "COCO_train2014_000000000007_1.jpg",
            "image_id": annotation // 10, "split": where, "sent_ids": [s["sent_id"] for s in sentences],
            "sentences": sentences,
        }  # fmt: skip

    return instances, [ref(1, 70, TEXTS), ref(2, 30, ["dog"]), ref(3, 71, ["crowd"]), ref(4, 70, ["other"], "train")]


def write_images(folder, ids=(3, 7)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in ids:
        Image.new("RGB", SIZE[::-1], (i * 9, 0, 0)).save(folder / f"COCO_train2014_{i:012d}.jpg")


def as_pickle(root, name="refcoco", by="unc", split="val", protocol=2):
    instances, refs = family(split)
    (root / name).mkdir(parents=True)
    (root / name / "instances.json").write_text(json.dumps(instances))
    (root / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=protocol))


def as_parquet(root, name="refcoco", split="val", stem="validation"):
    datasets = pytest.importorskip("datasets")
    instances, refs = family(split)
    images, objects = ({e["id"]: e for e in instances[key]} for key in ("images", "annotations"))
    rows = [
        r | {"raw_anns": json.dumps(objects[r["ann_id"]]), "raw_image_info": json.dumps(images[r["image_id"]]),
             "raw_sentences": "[]", "image_path": "coco/train2014/x.jpg", "bbox": [0.0, 0.0, 1.0, 1.0]}
        for r in refs if r["split"] == split
    ]  # fmt: skip
    (root / name / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(str(root / name / "data" / f"{stem}-00000-of-00001-0a.parquet"))


class Evil:
    def __init__(self, what, *args):
        self.what, self.args = what, args

    def __reduce__(self):
        return self.what, self.args


def row(intersection, union, hit, image=0, style="noun", variant="gs", sent=0, **more):
    return {
        "intersection": intersection, "union": union, "hit": hit, "image_id": image, "style": style, "sent_id": sent,
        "variant": variant, "objects": 4, "same": 1, "area": 10, "pixels": 1000, "cues": [], **more,
    }  # fmt: skip
