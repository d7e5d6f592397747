"""report.html of a run: its curves, its pictures and its config on one page that needs nothing but its folder."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from unclip.files import write_text
from unclip.train.chart import Points, chart
from unclip.train.log import read_log

# What a tick says besides the objective's own metrics, with its title, in the order of the page.
VITALS = {
    "grad_norm": "gradient norm, before clipping",
    "lr": "learning rate",
    "ema_gap": "distance of the weights to their average, as a share",
    "images_per_second": "images a second",
    "data_wait": "share of the time spent waiting for data",
    "memory_gb": "memory, GB",
    "device_memory_gb": "device memory, GB",
}
BOOKKEEPING = {"event", "step", "time", "images"}

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; --line: #2b6cb0; --faint: #8884 }
@media (prefers-color-scheme: dark) { :root { --line: #7cb3f0 } }
body { max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin: 2rem 0 .5rem; font-size: 1.1rem }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem } img { width: 100%; image-rendering: pixelated }
svg { width: 100%; display: block }
svg text { font-size: 11px; fill: currentColor; opacity: .7 }
svg line { stroke: var(--faint) }
polyline { fill: none; stroke: var(--line); stroke-width: 1.8 }
.raw { stroke-width: 1; opacity: .35 } circle { fill: var(--line) }
.mark { stroke: #d97706; stroke-dasharray: 4 3 } pre { overflow: auto; padding: 1rem; background: var(--faint) }
"""


def write_report(run: Path) -> None:
    """Writes `run`/report.html from its log.jsonl, config.yaml and previews. Raises OSError when the disk refuses."""
    log = read_log(run)
    ticks = [entry for entry in log if entry["event"] == "tick"]
    restarts = [entry["step"] for entry in log if entry["event"] == "start" and entry["restart"]]
    losses = _names(ticks) - {"loss", *VITALS}
    sections = [
        ("Loss", [_curve(ticks, name, name, restarts, smooth=True) for name in ("loss", *sorted(losses))]),
        ("Validation", _validation(log, restarts)),
        ("The run", [_curve(ticks, name, title, restarts, smooth=name == "grad_norm") for name, title in VITALS.items()]),
    ]
    body = [f"<h1>{escape(run.resolve().name)}</h1>", f"<p>{_summary(log, ticks)}</p>"]
    for title, charts in sections:
        if any(charts):
            body.append(f'<h2>{title}</h2><div class="charts">{"".join(charts)}</div>')
    if previews := [entry for entry in log if entry["event"] == "preview"]:
        wall = "".join(_thumbnail(entry) for entry in reversed(previews))
        body.append(f'<h2>Samples at fixed noise, averaged weights, newest first</h2><div class="wall">{wall}</div>')
    body.append(f"<h2>config.yaml</h2><pre>{escape((run / 'config.yaml').read_text(encoding='utf-8'))}</pre>")
    title = f"<title>{escape(run.resolve().name)}</title>"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">{title}<style>{STYLE}</style>'
    write_text(
        run / "report.html", f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
    )


def _names(entries: Iterable[Mapping[str, Any]]) -> set[str]:
    return {name for entry in entries for name, value in entry.items() if isinstance(value, int | float)} - BOOKKEEPING


def _curve(ticks: list[dict[str, Any]], name: str, title: str, restarts: list[int], *, smooth: bool) -> str:
    points: Points = [(entry["step"], entry[name]) for entry in ticks if name in entry]
    return chart(title, points, smooth=smooth, marks=restarts)


def _validation(log: list[dict[str, Any]], restarts: list[int]) -> list[str]:
    rounds = [{"step": entry["step"], **entry["figures"]} for entry in log if entry["event"] == "evaluate"]
    return [_curve(rounds, name, name, restarts, smooth=False) for name in sorted(_names(rounds))]


def _summary(log: list[dict[str, Any]], ticks: list[dict[str, Any]]) -> str:
    """One line: how far, how fast, how often it was started, what came last."""
    if not ticks:
        return "No step is logged yet."
    last = ticks[-1]
    starts = sum(entry["event"] == "start" for entry in log)
    facts = [
        f"step {last['step']:,}",
        f"{last['images']:,} images",
        f"loss {last['loss']:.4g}",
        f"{last['images_per_second']:.4g} images/s",
        "started once" if starts < 2 else f"started {starts} times",
    ]
    return " · ".join(facts)


def _thumbnail(entry: Mapping[str, Any]) -> str:
    path = escape(entry["path"])
    picture = f'<a href="{path}"><img loading="lazy" src="{path}" alt="samples at step {entry["step"]}"></a>'
    return f"<figure>{picture}<figcaption>step {entry['step']:,}</figcaption></figure>"
