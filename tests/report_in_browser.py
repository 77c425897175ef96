"""Opens reports in a browser and checks that they work and look as they should.

    python3 -m venv venv && venv/bin/pip install playwright
    KVGAUGE_REPORT_DIR=/tmp/reports cargo test --release --lib every_report_can_be_written
    venv/bin/python tests/report_in_browser.py --shots /tmp/shots /tmp/reports/*/report.html

Run by hand, with a Chromium of the system (`--browser`, /usr/bin/chromium unless said). Each file
is opened at 1280 and 375 pixels, light and dark, and as for a printer. Fails on a message in the
console, a request for anything but the file, a page wider than its window, text cut off or too
small in a picture, a number over a point or another number, or nearer to a point that is not its
own, a heading that does not sort, and a limit whose verdicts or recommendation are not those of
the rule; at the limit of the sweep they must be the ones already in the page. Pictures of it all
go to the folder `--shots`.
"""

import argparse
import json
import math
import pathlib
import sys

from playwright.sync_api import sync_playwright

VIEWS = [(width, theme) for width in (1280, 375) for theme in ("light", "dark")]
NARROWEST = 360
# A4 landscape less its margins, at 96 pixels an inch.
PRINTED = 1039
SMALLEST_TEXT = 10

failures = []


def check(ok, name, message):
    if not ok:
        failures.append(f"{name}: {message}")


def sort_keys(page, table, column):
    return page.evaluate(
        """([table, column]) => [...document.querySelectorAll("table[data-view]")[table]
            .tBodies[0].rows].map((row) => row.cells[column].dataset.sort)""",
        [table, column],
    )


def check_sorting(page, name):
    tables = page.locator("table[data-view]")
    for t in range(tables.count()):
        heads = tables.nth(t).locator("thead th")
        for c in range(heads.count()):
            head, button = heads.nth(c), heads.nth(c).locator("button")
            before = sort_keys(page, t, c)
            for direction in ("ascending", "descending"):
                # One with a click, one from the keyboard.
                if direction == "ascending":
                    button.evaluate("button => button.click()")
                else:
                    button.focus()
                    page.keyboard.press("Enter")
                check(head.get_attribute("aria-sort") == direction, name, f"column {c}: aria-sort")
                keys = sort_keys(page, t, c)
                present = [key for key in keys if key != ""]
                check(keys[len(present):] == [""] * (len(keys) - len(present)), name,
                      f"column {c}: missing figures are not last")
                if "name" in (head.get_attribute("class") or ""):
                    continue
                numbers = [float(key) for key in present]
                expected = sorted(numbers, reverse=direction == "descending")
                check(numbers == expected, name, f"column {c}: not {direction}: {numbers}")
            button.evaluate("button => button.click()")
            check(sort_keys(page, t, c) == before, name, f"column {c}: order asked for is lost")


def shown(page):
    return page.evaluate(
        """() => ({
            answers: [...document.querySelectorAll(".answer")].map((p) => p.textContent),
            verdicts: [...document.querySelectorAll("table[data-view] td.verdict")].map((td) => td.textContent),
            beside: [...document.querySelectorAll("table[data-both] td.verdict")].map((td) => td.textContent),
            chosen: [...document.querySelectorAll("tr.chosen")].map((tr) => tr.rowIndex),
        })"""
    )


def student_t(data, df):
    """97.5 %: the page's table where it reaches, else Cornish and Fisher's expansion."""
    if df <= len(data["t975"]):
        return data["t975"][df - 1]
    z = 1.959963984540054
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


def expected_verdict(data, subject, cell, limits):
    """The worst over the limits, each by its whole interval."""
    if not subject["judged"] or cell["invalid"]:
        return "invalid"
    change, kld, top1, size = limits
    down = -math.inf if change >= 100 else math.log1p(-change / 100)
    criteria = [(cell["log_ratio"], down, math.log1p(change / 100))]
    if kld is not None:
        criteria.append((cell["log_kld"], -math.inf, math.log(kld) if kld > 0 else -math.inf))
    if top1 is not None:
        criteria.append((cell["top1"], top1, math.inf))
    order = ["pass", "inconclusive", "fail"]
    # Bytes are counted: within or not.
    worst = 2 if size is not None and cell["bytes"] > size else 0
    for (mean, error), least, most in criteria:
        if error is None:
            verdict = "inconclusive"
        else:
            half = student_t(data, subject["windows"] - 1) * error
            low, high = (-math.inf,) * 2 if mean is None else (mean - half, mean + half)
            if low >= least and high <= most:
                verdict = "pass"
            else:
                verdict = "fail" if low > most or high < least else "inconclusive"
        worst = max(worst, order.index(verdict))
    return order[worst]


def expected_choice(data, subject, limits):
    def passes(cell):
        return expected_verdict(data, subject, cell, limits) == "pass"

    def everywhere(cell):
        return all(any(other["codec"] == cell["codec"] and passes(other) for other in view)
                   for view in subject["views"])

    fit = [cell for cell in subject["views"][0] if cell["ratio"] > 1 and everywhere(cell)]
    if not fit or not subject["recommends"]:
        return None
    return min(fit, key=lambda cell: (cell["bits"], cell["kld"]))["codec"]


def check_limit(page, name):
    fields = [page.locator(f"#{field}")
              for field in ("limit", "max-kld", "min-top1", "max-bytes")]
    if fields[0].count() == 0:
        return
    data = json.loads(page.locator("#data").text_content())
    static = shown(page)
    seen = set()
    none = (None, None, None)
    for limits in ((0.01, *none), (0.3, *none), (2.5, *none), (50, *none), (1e9, *none),
                   (1e9, 0.01, None, None), (1e9, None, 0.9, None), (5, 0.03, 0.8, 7000),
                   (1e9, None, None, 6000), (0, 0, 1, 0)):
        for field, limit in zip(fields, limits):
            field.fill("" if limit is None else "1000000000" if limit == 1e9 else f"{limit:.10g}")
        now = shown(page)
        seen.add(json.dumps(now["verdicts"]))
        cells = [(subject, cell) for subject in data["subjects"] for view in subject["views"]
                 for cell in view]
        for (subject, cell), words in zip(cells, now["verdicts"], strict=True):
            check(words.split()[0] == expected_verdict(data, subject, cell, limits), name,
                  f"limits {limits}: {cell['codec']} is {words}")
        beside = [cell for subject in data["subjects"] if len(subject["views"]) > 1
                  for first in subject["views"][0] for view in subject["views"]
                  for cell in view if cell["codec"] == first["codec"]]
        for cell, words in zip(beside, now["beside"], strict=True):
            of = next(s for s in data["subjects"] if any(cell in view for view in s["views"]))
            check(words.split()[0] == expected_verdict(data, of, cell, limits), name,
                  f"limits {limits}: {cell['codec']} is {words} side by side")
        for subject, answer in zip(data["subjects"], now["answers"], strict=True):
            codec = expected_choice(data, subject, limits)
            nothing = "No " if subject["judged"] else "Nothing"
            check((codec or nothing) in answer, name, f"limits {limits}: {codec} not in {answer}")
    several = any(s["windows"] > 1 and len(s["views"][0]) > 1 and s["judged"] for s in data["subjects"])
    check(len(seen) > 1 or not several, name, "no limit changes a verdict")
    page.locator("#reset").click()
    check(shown(page) == static, name, f"at the sweep's limits: {shown(page)} is not {static}")


def check_layout(page, name, width):
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    check(over <= 0, name, f"{over} pixels wider than the window")
    problems = page.evaluate(
        """(smallest) => [...document.querySelectorAll("svg.chart")].flatMap((svg) => {
            const box = svg.getBoundingClientRect();
            const label = svg.getAttribute("aria-label").slice(0, 40);
            return [...svg.querySelectorAll("text")].flatMap((text) => {
                const t = text.getBoundingClientRect();
                const size = parseFloat(getComputedStyle(text).fontSize) * box.width / svg.viewBox.baseVal.width;
                const out = [];
                if (t.left < box.left - 1 || t.right > box.right + 1 || t.top < box.top - 1 || t.bottom > box.bottom + 1)
                    out.push(`${label}: cut: ${text.textContent.trim()}`);
                if (size < smallest - 0.05) out.push(`${label}: ${size.toFixed(1)} px: ${text.textContent.trim()}`);
                return out;
            });
        })""",
        SMALLEST_TEXT,
    )
    for problem in problems:
        check(False, name, f"at {width}: {problem}")


def check_overlaps(page, name):
    overlaps = page.evaluate(
        """() => [...document.querySelectorAll("svg.chart")].flatMap((svg) => {
            const texts = [...svg.querySelectorAll("text")].map((t) => [t.textContent.trim(), t.getBoundingClientRect()]);
            const out = [];
            texts.forEach(([a, x], i) => texts.slice(i + 1).forEach(([b, y]) => {
                const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
                const tall = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
                if (wide > 1 && tall > 4) out.push(`${a} over ${b} in ${svg.getAttribute("aria-label").slice(0, 40)}`);
            }));
            return out;
        })"""
    )
    for overlap in overlaps:
        check(False, name, overlap)


def check_names(page, name):
    """Points and their numbers: `.point-name[data-of]` stands for each `.hit[data-cell]` of it."""
    problems = page.evaluate(
        """() => [...document.querySelectorAll("svg.chart")].flatMap((svg) => {
            const label = svg.getAttribute("aria-label").slice(0, 40);
            const pixel = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
            const middle = (box) => [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
            const points = [...svg.querySelectorAll(".hit:not(.on-line)")]
                .map((hit) => [hit.dataset.cell, middle(hit.getBoundingClientRect())]);
            // A line of text is taller than its letters.
            const texts = [...svg.querySelectorAll("text")].map((text) => {
                const box = text.getBoundingClientRect();
                const less = (box.bottom - box.top) * 0.2;
                return {
                    text: text.textContent.trim(),
                    of: text.dataset.of?.split(" "),
                    box: { left: box.left, right: box.right, top: box.top + less, bottom: box.bottom - less },
                };
            });
            const apart = ([x, y], box) => Math.hypot(
                Math.max(box.left - x, x - box.right, 0), Math.max(box.top - y, y - box.bottom, 0));
            const out = [];
            for (const { text, of, box } of texts) {
                for (const [cell, point] of points)
                    if (apart(point, box) < 3 * pixel) out.push(`${text} over point ${cell}`);
                if (!of) continue;
                const nearest = (own) => Math.min(...points.filter(([cell]) => of.includes(cell) === own)
                    .map(([, point]) => apart(point, box)));
                // Points on one place can have no nearer one.
                const same = points.some(([cell, p]) => !of.includes(cell) && points.some(([other, q]) =>
                    of.includes(other) && Math.hypot(p[0] - q[0], p[1] - q[1]) < 4 * pixel));
                if (!same && nearest(true) >= nearest(false)) out.push(`${text} is nearer to another point`);
            }
            return out.map((problem) => `${problem} in ${label}`);
        })"""
    )
    for problem in problems:
        check(False, name, problem)


def look_at(browser, path, shots):
    name = path.parent.name
    url = path.resolve().as_uri()
    for width, theme in VIEWS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        page = context.new_page()
        page.on("console", lambda m: check(False, name, f"console: {m.text}"))
        page.on("pageerror", lambda e: check(False, name, f"error: {e}"))
        page.on("dialog", lambda d: (check(False, name, "a dialog"), d.dismiss()))
        page.on("request", lambda r: check(r.url == url, name, f"request: {r.url[:80]}"))
        page.goto(url)
        check_layout(page, name, width)
        if shots:
            page.screenshot(path=shots / f"{name}-{width}-{theme}.png", full_page=True)
        if (width, theme) == VIEWS[0]:
            check_overlaps(page, name)
            check_names(page, name)
            check_sorting(page, name)
            check_limit(page, name)
            page.set_viewport_size({"width": NARROWEST, "height": 800})
            over = page.evaluate("document.documentElement.scrollWidth") - NARROWEST
            check(over <= 0, name, f"{over} pixels wider than {NARROWEST}")
            page.set_viewport_size({"width": PRINTED, "height": 718})
            page.emulate_media(media="print", color_scheme="dark")
            check_layout(page, name, PRINTED)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            check(ground == "rgb(255, 255, 255)", name, f"printed on {ground}")
            if shots:
                page.screenshot(path=shots / f"{name}-print.png", full_page=True)
                page.pdf(path=shots / f"{name}.pdf", prefer_css_page_size=True)
        context.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reports", nargs="+", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    args = parser.parse_args()
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser, args=["--no-sandbox"])
        for path in args.reports:
            look_at(browser, path, args.shots)
        browser.close()
    for failure in failures:
        print(failure)
    print(f"{len(args.reports)} reports, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
