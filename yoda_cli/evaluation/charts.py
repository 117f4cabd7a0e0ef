"""Small line charts as SVG text: means with a band of one standard deviation, readable in print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

MARK = "<metadata>yoda</metadata>"  # tells a chart of ours from any other
Point = tuple[float, float, float]  # x, mean, standard deviation

WIDTH, HEIGHT = 640, 300

LEFT, RIGHT, TOP, BOTTOM = 56, 150, 28, 40

# Okabe and Ito's colours, told apart without colour vision too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")


def line_chart(
    title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]
) -> str:
    """One chart; every series gets a line, a band where it varies, and its name at its end."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    y_low = min(p[1] - p[2] for p in points)
    y_high = max(p[1] + p[2] for p in points)
    y_low, y_high = (y_low, y_high) if y_high > y_low else (y_low - 0.5, y_high + 0.5)

    def at(x: float, y: float) -> str:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_low) / (y_high - y_low)
        px = LEFT + across * (WIDTH - LEFT - RIGHT)
        return f"{px:.1f},{HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="11">',
        MARK,
        f'<text x="{LEFT}" y="16" font-size="13" fill="currentColor">{escape(title)}</text>',
    ]
    parts += axes(x_low, x_high, y_low, y_high, x_label, y_label)
    for line, colour in zip(series.values(), COLOURS * (1 + len(series) // 8), strict=False):
        band = [at(x, y + s) for x, y, s in line] + [at(x, y - s) for x, y, s in reversed(line)]
        if any(s > 0 for _, _, s in line):
            parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.15"/>')
        middle = [at(x, y) for x, y, _ in line]
        parts.append(
            f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" '
            'stroke-width="2"/>'
        )
        parts += [
            f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.5" fill="{colour}"/>'
            for p in middle
        ]
    parts += legend(series)
    return "\n".join([*parts, "</svg>"])


def axes(
    x_low: float, x_high: float, y_low: float, y_high: float, x_label: str, y_label: str
) -> list[str]:
    """Five ticks on each axis, and what they measure."""
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = []
    for i in range(5):
        y = HEIGHT - BOTTOM - inner_height * i / 4
        x = LEFT + inner_width * i / 4
        parts += [
            f'<line x1="{LEFT}" x2="{LEFT + inner_width}" y1="{y}" y2="{y}" stroke="currentColor" '
            'opacity="0.15"/>',
            f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end" fill="currentColor">'
            f"{y_low + (y_high - y_low) * i / 4:.3g}</text>",
            f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" fill="currentColor">'
            f"{x_low + (x_high - x_low) * i / 4:.3g}</text>",
        ]
    parts.append(
        f'<text x="{LEFT + inner_width / 2}" y="{HEIGHT - 6}" text-anchor="middle" '
        f'fill="currentColor">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text x="14" y="{TOP + inner_height / 2}" text-anchor="middle" fill="currentColor" '
        f'transform="rotate(-90 14 {TOP + inner_height / 2})">{escape(y_label)}</text>'
    )
    return parts


def legend(series: Mapping[str, Sequence[Point]]) -> list[str]:
    """The series' names in their colours, at the right."""
    parts = []
    for i, name in enumerate(series):
        y = TOP + 14 * i + 8
        parts += [
            f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 8}" width="10" height="10" '
            f'fill="{COLOURS[i % len(COLOURS)]}"/>',
            f'<text x="{WIDTH - RIGHT + 30}" y="{y + 1}" fill="currentColor">{escape(name)}</text>',
        ]
    return parts
