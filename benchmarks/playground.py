"""How long a move of the playground takes, in headless Chromium: prints JSON.

A move is an input event of a slider: all numbers, three panels and the table are computed and drawn anew.
``ms_per_move`` counts from the event until the layout is done; ``ms_to_frame`` until the next frame was painted, which
a screen of 60 Hz alone makes up to 17 ms.

    python benchmarks/playground.py          # seconds
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import sync_playwright

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "_static" / "playground.js"
PAGE = "<!DOCTYPE html><title>boards</title>" + "".join(
    f'<div data-qlung-board="{name}"></div>' for name in ("margins", "quality")
)
MOVE = """async ([board, moves]) => {
  const root = document.querySelector(`[data-qlung-board="${board}"]`);
  const sliders = [...root.querySelectorAll("input[type=range]:enabled")];
  const frame = () => new Promise(done => requestAnimationFrame(() => {
    const channel = new MessageChannel(); channel.port1.onmessage = done; channel.port2.postMessage(0); }));
  const layout = [], painted = [];
  for (let i = 0; i < moves; i++) {
    const slider = sliders[i % sliders.length], low = +slider.min, high = +slider.max;
    await frame();
    const started = performance.now();
    slider.value = low + (high - low) * ((i * 0.37) % 1);
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    root.getBoundingClientRect();
    layout.push(performance.now() - started);
    await frame();
    painted.push(performance.now() - started);
  }
  return [layout, painted];
}"""


def summary(times: list[float]) -> dict:
    ordered = sorted(times)
    last = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": round(statistics.median(ordered), 2), "p95": round(last, 2), "largest": round(ordered[-1], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=200)
    moves = parser.parse_args().moves
    boards = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_content(PAGE)
            page.add_script_tag(content=SCRIPT.read_text(encoding="utf-8"))
            for board in ("margins", "quality"):
                layout, painted = page.evaluate(MOVE, [board, moves])
                row = {"ms_per_move": summary(layout), "ms_to_frame": summary(painted)}
                boards[board] = boards.get(board, row) | ({"phone": row} if width == 390 else {})
        version = browser.version
        browser.close()
    print(json.dumps({"chromium": version, "moves": moves, "boards": boards}, indent=1))


if __name__ == "__main__":
    main()
