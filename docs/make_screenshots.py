"""README's pictures of the explorers: ``python docs/make_screenshots.py`` writes docs/images/*.jpg with Chromium.

To look at them on a phone, elsewhere: ``python docs/make_screenshots.py --width 390 --out out/phone``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.run import evaluate
from refdiff_lite.networks import Networks
from refdiff_lite.record import Record
from refdiff_lite.trace import trace
from refdiff_lite.widgets import (
    AttentionComparison,
    AttentionExplorer,
    Gallery,
    InversionExplorer,
    SegmentationPlayground,
    TextExplorer,
)
from refdiff_lite.widgets.base import Explorer
from refdiff_lite.widgets.traced import attention_of

IMAGES = Path(__file__).parent / "images"


def point(page: Page) -> None:
    """Rest the mouse on the second picture, where there is one."""
    box = page.locator(".rdl-stage").nth(1).bounding_box()
    if box:
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6)


def make_explorers(folder: Path) -> dict[str, Explorer]:
    """One of each, on scenes that show something; ``folder`` takes the gallery's run."""
    data = load_toyref("test", limit=6)
    model = RefDiff.from_preset("toy")
    sample = max(data, key=lambda s: len(s.masks))
    scene = model.set_image(sample.path, oracle=sample.masks)
    record = next(r for r in sample.records if r.style == "toyref-g")
    words = len(record.text.split())
    evaluate(model, data, ["full"], "felzenszwalb", folder, {"data": "toyref", "split": "test"})
    return {
        "attention": AttentionExplorer.from_scene(scene, record.text, pinned=[2, words]),
        "playground": SegmentationPlayground(
            scene, record.text, sample.records[0].text, truth={record.text: sample.masks[record.target]}
        ),
        "comparison": AttentionComparison.from_scenes((scene, record.text), (scene, sample.records[0].text)),
        "text": TextExplorer.from_networks(model.networks, record.text, token=words),
        "inversion": InversionExplorer.from_scene(scene, steps=10, step=15),
        "gallery": Gallery.from_run(folder, model=model),
        "traced": AttentionExplorer(
            attention_of(painted(model.networks)), pinned=[2, 5], layer="up_blocks.0.attentions.1", step=2
        ),
    }


def painted(networks: Networks) -> Record:
    """A generation of the toy, as in lesson 11."""
    with networks.at_work(), trace(networks.sd, steps=[0, 4, 9, 19], heads="each") as record:
        networks.sd(
            "a robot and an orange", num_inference_steps=20, guidance_scale=5.0, height=128, width=128,
            generator=torch.Generator().manual_seed(20),
        )  # fmt: skip
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description="pictures of the explorers, light and dark")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--width", type=int, default=1180, help="of the window, in pixels")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        explorers = make_explorers(Path(folder))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": asked.width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            for name, explorer in explorers.items():
                page.goto(explorer.save_html(Path(folder) / f"{name}.html").as_uri())
                page.wait_for_timeout(500)
                if name in ("attention", "traced"):
                    point(page)
                    page.wait_for_timeout(300)
                shot = Path(folder) / "shot.png"
                page.locator(".rdl").screenshot(path=shot)
                ends = ".jpg" if scheme == "light" else "-dark.jpg"
                Image.open(shot).convert("RGB").save(
                    asked.out / f"{name}{ends}", quality=88, subsampling=0, optimize=True
                )
        browser.close()


if __name__ == "__main__":
    main()
