"""A benchmark as a page, as CSV, and beside what others printed."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from yoda_cli.evaluation.benchmark import Bench
from yoda_cli.evaluation.charts import MARK, Point, line_chart
from yoda_cli.files import counted

CSV_MARK = b"dataset,picture,method,width,height,"
PAGE_MARK = b'<meta name="generator" content="yoda">'
CHART_MARK = MARK.encode()
EXTREMES = 4  # so many of the worst and of the best pictures are shown


def as_csv(document: Mapping[str, Any]) -> str:
    """One line per picture and method."""
    names = list(document["definitions"])
    counts = ("calls", "planned_calls", "dense_calls", "gflop", "seconds", "peak_mb")
    columns = ["dataset", "picture", "method", "width", "height", *names, *counts, "error"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document["rows"])
    return out.getvalue()


def published_lines(document: Mapping[str, Any], bench: Bench) -> list[str]:
    """Lines of numbers others printed for these data sets, factor and definition; often none."""
    packaged = files("yoda_cli.evaluation") / "published.toml"
    table = tomllib.loads(packaged.read_text(encoding="utf-8"))
    channel = "y" if bench.frame.on_luma else "rgb"
    lines = []
    for row in table["rows"]:
        fits = (row["scale"], row["channel"]) == (bench.scale, channel)
        if not fits or bench.frame.border != bench.scale or row["metric"] not in document["better"]:
            continue
        for dataset in sorted({line["dataset"] for line in document["summary"]}):
            values = row["values"].get(dataset, {})
            text = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
            lines += [f"{dataset}, {row['metric']}, as printed: {text}"] if text else []
    return lines


def charts(document: Mapping[str, Any], ablated: str | None) -> dict[str, str]:
    """Name → SVG: the refined area of every step, and what the ablated setting does."""
    found = {}
    summary = document["summary"]
    for dataset in sorted({line["dataset"] for line in summary}):
        mine = [line for line in summary if line["dataset"] == dataset]
        area: dict[str, list[Point]] = {
            line["method"]: [
                ((i + 1) / len(line["active"]), 100 * mean, 100 * std)
                for i, (mean, std) in enumerate(line["active"])
            ]
            for line in mine
            if line["active"]
        }
        if area:
            title = f"{dataset}: share of the picture refined in each step"
            found[f"{dataset}_area"] = line_chart(title, "part of the chain done", "%", area)
        for metric in document["definitions"]:
            values = [line[metric] for line in mine]
            if ablated is None or any(value is None for value in values):
                continue
            if ablated == "adaptive":  # against what it costs
                curves = curves_of(mine, metric)
                chart = line_chart(f"{dataset}: {metric}", "GFLOP", metric, curves)
                found[f"{dataset}_{ablated}_{metric}"] = chart
                continue
            points: list[Point] = [
                (setting_of(line["method"], i), line[metric], 0.0) for i, line in enumerate(mine)
            ]
            names = ", ".join(line["method"].removeprefix(f"{ablated} ") for line in mine)
            label = f"{ablated}: {names}"
            chart = line_chart(f"{dataset}: {metric}", label, metric, {metric: points})
            found[f"{dataset}_{ablated}_{metric}"] = chart
    return found


def curves_of(summary: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[Point]]:
    """A curve for each kind of method, of a metric over what it costs, from cheap to dear."""
    curves: dict[str, list[Point]] = {}
    for line in sorted(summary, key=lambda line: float(line["gflop"] or 0.0)):
        kind = line["method"].split()[0]
        curves.setdefault(kind, []).append((line["gflop"] or 0.0, line[metric], 0.0))
    return curves


def chart_names(bench: Bench, ablated: str | None) -> list[str]:
    """Every name that ``charts`` may give."""
    sets = sorted({dataset.name for dataset in bench.datasets})
    names = [f"{dataset}_area" for dataset in sets]
    if ablated is not None:
        names += [f"{name}_{ablated}_{metric.name}" for name in sets for metric in bench.metrics]
    return names


def setting_of(method: str, index: int) -> float:
    """The number in an ablation method's name, or its place where it is a word."""
    try:
        return float(method.rsplit(" ", 1)[-1])
    except ValueError:
        return float(index)


def page(
    document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], bench: Bench,
    pictures: Mapping[str, str],
) -> str:  # fmt: skip
    """The HTML page: one file that asks for nothing."""
    names = list(document["definitions"])
    extra = ["calls", "dense_calls", "gflop", "seconds", "peak_mb"]
    summary = ["dataset", "method", "pictures", *names, *extra]
    each = ["dataset", "picture", "method", *names, "calls", "dense_calls", "gflop", "seconds"]
    content = {
        "about": f"{document['model']}, x{document['scale']}, {document['date']}, yoda "
        f"{document['yoda']}, torch {document['torch']}, {document['device']}, "
        f"{document['precision']}, {counted(document['threads'], 'thread')}",
        "command": document["command"],
        "definitions": list(document["definitions"].items()),
        "printed": published_lines(document, bench),
        "summary": {"columns": summary, "rows": cells(document["summary"], summary)},
        "rows": {"columns": each, "rows": cells(document["rows"], each)},
        "crops": extremes(rows, names),
    }
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    template = (files("yoda_cli.evaluation") / "bench.html").read_text(encoding="utf-8")
    drawn = "\n".join(pictures.values())
    return Template(template).substitute(data=text, charts=drawn)


def cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[Any]]:
    """Rows as lists; what is missing is None."""
    return [[row.get(column) for column in columns] for row in rows]


def extremes(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Crops of the pictures on which the first method does worst and best by the first metric."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "crop" in row and metrics and row.get(metrics[0]) is not None:
            groups.setdefault((row["dataset"], row["picture"]), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: item[1][0][metrics[0]] if metrics else 0)
    kept = ordered if len(ordered) <= 2 * EXTREMES else ordered[:EXTREMES] + ordered[-EXTREMES:]
    return [
        {
            "title": f"{dataset} / {picture}",
            "images": [
                *((caption(row, metrics[0]), row["crop"]) for row in members),
                ("HR", members[0]["crop_hr"]),
            ],
        }
        for (dataset, picture), members in kept
    ]


def caption(row: Mapping[str, Any], metric: str) -> str:
    """A method and its number."""
    return f"{row['method']} {metric} {row[metric]:.4g}"


def as_markdown(document: Mapping[str, Any]) -> str:
    """The means as tables for a README, with when, where and how they were taken."""
    shown = [name for name in ("psnr", "ssim", "texture", "colour") if name in document["better"]]
    beside = ("calls", "GFLOP", "seconds")
    sets = list(dict.fromkeys(line["dataset"] for line in document["summary"]))
    lines = []
    for dataset in sets:
        mine = [line for line in document["summary"] if line["dataset"] == dataset]
        lines += [
            f"| {dataset} ({mine[0]['pictures']}) | {' | '.join([*shown, *beside])} |",
            "|" + "---|" * (1 + len(shown) + len(beside)),
        ]
        for line in mine:
            numbers = [f"{line[name]:.{2 if name == 'psnr' else 3}f}" for name in shown]
            gflop = "" if line["gflop"] is None else f"{line['gflop']:.0f}"
            numbers += [f"{line['calls']:.1f}", gflop, f"{line['seconds']:.2f}"]
            lines.append(f"| {line['method']} | {' | '.join(numbers)} |")
        lines.append("")
    lines += [f"{name}: {document['definitions'][name]}." for name in shown]
    count = document["threads"]
    threads = counted(count, "thread")
    lines += [
        "",
        f"`{document['command']}`, {document['date']}: yoda {document['yoda']}, torch "
        f"{document['torch']}, {document['device']}, {document['precision']}, "
        f"{threads} of {document['machine']}.",
    ]
    return "\n".join(lines) + "\n"
