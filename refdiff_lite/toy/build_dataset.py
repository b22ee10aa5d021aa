"""Write the bundled splits of ToyRef: COCO ``instances.json``, REFER-style ``refs.json``, and the images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm.auto import tqdm

from ..files import data_dir, write_text, write_whole
from .phrases import ORDINALS, STYLES, expressions, ordinals
from .scenes import SIDE, SPLIT_SEEDS, categories, make_scene

SCENES = {"val": 160, "test": 160, "unseen": 60}


def build_split(split: str, count: int, folder: Path) -> dict[str, int]:
    """Write one split into ``folder/split``; the same code always writes the same annotations.

    Returns:
        how many scenes, scenes with two of a kind, and expressions there are.
    """
    target = folder / split
    (target / "images").mkdir(parents=True, exist_ok=True)
    numbers = {name: i + 1 for i, name in enumerate(categories())}
    images: list[dict] = []
    annotations: list[dict] = []
    refs: list[dict] = []
    sentence = twins = 0
    for index in tqdm(range(count), f"writing {split}", mininterval=5):
        scene = make_scene(split, index)
        twins += len({t.category for t in scene.things}) < len(scene.things)
        image_id = SPLIT_SEEDS[split] * 10_000 + index
        name = f"{image_id:06d}.jpg"
        write_whole(target / "images" / name, partial(Image.fromarray(scene.image).save, quality=95, subsampling=0))
        images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
        rng = np.random.default_rng([SPLIT_SEEDS[split], index, 1])
        texts = {style: expressions(scene.things, style, rng) for style in STYLES}
        for i, (thing, mask) in enumerate(zip(scene.things, scene.masks, strict=True)):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            ann_id = image_id * 10 + i
            annotations.append(
                {
                    "id": ann_id,
                    "image_id": image_id,
                    "category_id": numbers[thing.category],
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "tint": thing.tint,
                    "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
                }
            )
            sentences = []
            for style in STYLES:
                if i in texts[style]:
                    text = texts[style][i]
                    sentences.append(
                        {
                            "sent_id": SPLIT_SEEDS[split] * 100_000 + sentence,
                            "raw": text,
                            "sent": text,
                            "tokens": text.split(),
                            "style": style,
                        }
                    )
                    sentence += 1
            if sentences:
                refs.append(
                    {
                        "ref_id": len(refs),
                        "ann_id": ann_id,
                        "category_id": numbers[thing.category],
                        "image_id": image_id,
                        "file_name": name,
                        "split": split,
                        "sent_ids": [s["sent_id"] for s in sentences],
                        "sentences": sentences,
                    }
                )
    instances = {
        "info": {"description": f"ToyRef {split}", "version": "1.0"},
        "licenses": [{"id": 1, "name": "MIT"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for name, i in numbers.items()],
    }
    for name, content in {"instances.json": instances, "refs.json": refs}.items():
        write_text(target / name, json.dumps(content, separators=(",", ":")))
    return {"scenes": count, "with two of a kind": twins, "expressions": sentence}


def build_ordinals(split: str, count: int, folder: Path) -> int:
    """Write the references of style ``toyref-ord`` of a split into a file of their own; returns how many there are.

    They came later: what the other styles measured stays as it was, as do their files.
    """
    refs: list[dict] = []
    for index in range(count):
        things = make_scene(split, index).things
        image_id = SPLIT_SEEDS[split] * 10_000 + index
        texts = ordinals(things, np.random.default_rng([SPLIT_SEEDS[split], index, 2]))
        for i, text in texts.items():
            number = SPLIT_SEEDS[split] * 100_000 + 50_000 + len(refs)
            sentence = {
                "sent_id": number, "raw": text, "sent": text, "tokens": text.split(), "style": ORDINALS,
            }  # fmt: skip
            refs.append(
                {
                    "ref_id": 50_000 + len(refs), "ann_id": image_id * 10 + i, "image_id": image_id,
                    "category_id": categories().index(things[i].category) + 1, "file_name": f"{image_id:06d}.jpg",
                    "split": split, "sent_ids": [number], "sentences": [sentence],
                }
            )  # fmt: skip
    write_text(folder / split / "refs-ord.json", json.dumps(refs, separators=(",", ":")))
    return len(refs)


if __name__ == "__main__":
    for split, count in SCENES.items():
        print(split, build_ordinals(split, count, data_dir() / "toyref"), "ordinals")
        print(split, build_split(split, count, data_dir() / "toyref"))
