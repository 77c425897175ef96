"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  // --- Sorting: missing figures stay last either way. ---
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const asked = [...body.rows];
    heads.forEach((head, column) => {
      const text = head.classList.contains("name") || head.classList.contains("name2");
      head.querySelector("button").addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        // Up, down, and back to the order asked for.
        const next = now === "ascending" ? "descending" : now === "descending" ? null : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        let rows = asked.slice();
        if (next) {
          head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          const key = (row) => row.cells[column].dataset.sort;
          const compare = text
            ? (a, b) => a.localeCompare(b, "en", { numeric: true })
            : (a, b) => (Number(a) === Number(b) ? 0 : Number(a) - Number(b));
          rows.sort((a, b) => {
            const [x, y] = [key(a), key(b)];
            if (x === "" || y === "") return (x === "") - (y === "");
            return sign * compare(x, y);
          });
        }
        body.append(...rows);
      });
    });
  };

  // --- Other limits: the rules of `eval/verdict.rs` and `recommend`. ---
  const MOST_WINDOWS = 1e6;
  const ORDER = { pass: 0, inconclusive: 1, fail: 2, invalid: 3 };

  // Student's t: a table, and beyond it the expansion around the normal quantile.
  const quantile = (table, z) => (df) => {
    if (df <= table.length) return table[df - 1];
    const [z3, z5, z7] = [z ** 3, z ** 5, z ** 7];
    return z + (z3 + z) / (4 * df) + (5 * z5 + 16 * z3 + 3 * z) / (96 * df ** 2) +
      (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * df ** 3) +
      (79 * z ** 9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * df ** 4);
  };
  const t975 = quantile(data.t975, 1.959963984540054);
  const t900 = quantile(data.t900, 1.2815515655446004);

  // A figure on the scale of its interval, and the values it may have.
  const criteria = (cell, limits) => {
    const change = limits.change / 100;
    const least = change < 1 ? Math.log1p(-change) : -Infinity;
    const list = [{ estimate: cell.log_ratio, least, most: Math.log1p(change) }];
    if (limits.kld !== null) {
      list.push({ estimate: cell.log_kld, least: -Infinity, most: Math.log(limits.kld) });
    }
    if (limits.top1 !== null) {
      list.push({ estimate: cell.top1, least: limits.top1, most: Infinity });
    }
    // Counted, without an error.
    if (limits.bytes !== null) {
      list.push({ estimate: [cell.bytes, 0], least: -Infinity, most: limits.bytes });
    }
    return list;
  };

  const judge = ({ estimate: [mean, error], least, most }, windows) => {
    if (error === null) return "inconclusive";
    const half = error === 0 ? 0 : t975(windows - 1) * error;
    // JSON has no infinity: the logarithm of a KLD of 0.
    const [low, high] = mean === null ? [-Infinity, -Infinity] : [mean - half, mean + half];
    if (low >= least && high <= most) return "pass";
    if (low > most || high < least) return "fail";
    return "inconclusive";
  };

  const settledAt = (z, windows) => {
    const settles = (n) => t975(n - 1) * Math.sqrt(windows / n) <= z;
    let [a, b] = [windows, windows + 1];
    while (!settles(b)) {
      a = b;
      b *= 2;
      if (b > MOST_WINDOWS) return null;
    }
    while (b - a > 1) {
      const middle = a + Math.floor((b - a) / 2);
      if (settles(middle)) b = middle; else a = middle;
    }
    return b;
  };

  // The number of windows that would settle a figure, and the ends of its 80 % interval.
  const windowsNeeded = ({ estimate: [mean, error], least, most }, windows) => {
    if (windows < data.least_windows_to_plan) return null;
    const z = Math.min(Math.abs(mean - least), Math.abs(mean - most)) / error;
    const half = t900(windows - 1) * Math.sqrt(1 + z * z / (2 * (windows - 1)));
    const needed = settledAt(z, windows);
    if (needed === null) return null;
    return [needed, settledAt(z + half, windows), settledAt(z - half, windows)];
  };

  // Class and words.
  const verdict = (cell, { windows, windows_left: left, judged }, limits) => {
    if (!judged || cell.invalid) return ["invalid", ""];
    const list = criteria(cell, limits);
    const verdicts = list.map((criterion) => judge(criterion, windows));
    const worst = verdicts.reduce((a, b) => (ORDER[b] > ORDER[a] ? b : a));
    if (worst !== "inconclusive") return [worst, ""];
    if (windows < 2) return [worst, "one window"];
    if (windows < data.least_windows_to_plan) return [worst, "few windows"];
    const open = list.filter((_, i) => verdicts[i] === "inconclusive");
    const needed = open.map((criterion) => windowsNeeded(criterion, windows));
    if (needed.includes(null)) return [worst, "too close"];
    const [, low, high] = needed.reduce((a, b) => (b[0] >= a[0] ? b : a));
    const short = left === null || low <= left ? "" : `, text has ${left}`;
    return [worst, `needs ${low} ${high === null ? "or more" : `to ${high}`} windows${short}`];
  };

  const recommend = (subject, limits) => {
    if (!subject.recommends) return null;
    const [first, ...others] = subject.views;
    const passes = (cell) => verdict(cell, subject, limits)[0] === "pass";
    const everywhere = ({ codec }) =>
      others.every((cells) => cells.some((cell) => cell.codec === codec && passes(cell)));
    return first.filter((cell) => cell.ratio > 1 && passes(cell) && everywhere(cell)).reduce(
      (best, cell) => {
        if (!best) return cell;
        const size = cell.bits - best.bits;
        return size < 0 || (size === 0 && cell.kld < best.kld) ? cell : best;
      }, null);
  };

  const words = ({ change, kld, top1, bytes }) => `±${change} % perplexity` +
    (kld === null ? "" : `, mean KLD at most ${kld}`) +
    (top1 === null ? "" : `, top-1 at least ${Math.round(top1 * 1e8) / 1e6} %`) +
    (bytes === null ? "" : `, at most ${bytes} bytes a token`);

  const tables = [...document.querySelectorAll("table[data-view]")];
  const both = [...document.querySelectorAll("table[data-both]")];
  const show = (place, cell, subject, limits) => {
    const [name, text] = verdict(cell, subject, limits);
    place.dataset.sort = ORDER[name];
    place.firstElementChild.className = name;
    place.firstElementChild.textContent = name;
    place.lastElementChild.textContent = text;
  };
  const apply = (limits) => {
    const chosen = data.subjects.map((subject) => recommend(subject, limits));
    for (const table of tables) {
      const subject = data.subjects[table.dataset.subject];
      const cells = subject.views[table.dataset.view];
      for (const row of table.tBodies[0].rows) {
        const cell = cells[row.dataset.cell];
        row.classList.toggle("chosen", cell.codec === chosen[table.dataset.subject]?.codec);
        show(row.querySelector("td.verdict"), cell, subject, limits);
      }
    }
    for (const table of both) {
      const subject = data.subjects[table.dataset.both];
      for (const row of table.tBodies[0].rows) {
        const { codec } = subject.views[0][row.dataset.cell];
        row.classList.toggle("chosen", codec === chosen[table.dataset.both]?.codec);
        for (const place of row.querySelectorAll("td.verdict")) {
          const cell = subject.views[place.dataset.view].find((cell) => cell.codec === codec);
          show(place, cell, subject, limits);
        }
      }
    }
    data.subjects.forEach((subject, i) => {
      const answer = document.querySelector(`.answer[data-subject="${i}"]`);
      answer.querySelector(".at").textContent = words(limits);
      if (!subject.judged) return;
      const none = subject.windows < 2 ? ["No recommendation", data.one_window] : ["No codec", subject.none_within];
      const [codec, says] = chosen[i] ? [chosen[i].codec, chosen[i].summary] : none;
      answer.querySelector(".codec").textContent = codec;
      answer.querySelector(".says").textContent = says;
    });
  };

  // --- A point and its row. ---
  const pair = (section, table) => {
    const rows = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.cell, row]));
    const hits = new Map();
    for (const hit of section.querySelectorAll(".hit")) {
      const cell = hit.dataset.cell;
      if (!hits.has(cell)) hits.set(cell, []);
      hits.get(cell).push(hit);
    }
    const mark = (cell, on) => {
      rows.get(cell)?.classList.toggle("near", on);
      hits.get(cell)?.forEach((hit) => hit.classList.toggle("near", on));
    };
    for (const [cell, row] of rows) {
      row.addEventListener("mouseenter", () => mark(cell, true));
      row.addEventListener("mouseleave", () => mark(cell, false));
    }
    for (const [cell, all] of hits) {
      for (const hit of all) {
        hit.addEventListener("mouseenter", () => rows.get(cell)?.classList.add("near"));
        hit.addEventListener("mouseleave", () => rows.get(cell)?.classList.remove("near"));
      }
    }
  };

  document.querySelectorAll("table.models").forEach(sortable);
  for (const table of tables) {
    sortable(table);
    pair(table.closest(".view"), table);
  }
  const ids = ["limit", "max-kld", "min-top1", "max-bytes"];
  const fields = ids.map((id) => document.getElementById(id));
  if (fields[0]) {
    const reset = document.getElementById("reset");
    const { max_ppl_increase: change, max_kld: kld, min_top1: top1 } = data.limits;
    const own = [change, kld, top1, data.limits.max_bytes_per_token];
    fields[0].closest(".limit").hidden = false;
    // A limit that is not set is an empty field, but for the first.
    const read = (field, i) => {
      const value = field.value === "" && !field.validity.badInput && i > 0 ? null : field.valueAsNumber;
      const valid = value === null || (value >= 0 && (ids[i] !== "min-top1" || value <= 1));
      field.setAttribute("aria-invalid", String(!valid));
      return valid ? value : undefined;
    };
    const changed = () => {
      const found = fields.map(read);
      if (found.includes(undefined)) return;
      reset.hidden = found.every((value, i) => value === own[i]);
      apply({ change: found[0], kld: found[1], top1: found[2], bytes: found[3] });
    };
    // A reload keeps what was typed.
    if (fields.some((field, i) => field.value !== String(own[i] ?? ""))) changed();
    fields.forEach((field) => field.addEventListener("input", changed));
    reset.addEventListener("click", () => {
      fields.forEach((field, i) => { field.value = own[i] ?? ""; });
      changed();
      fields[0].focus();
    });
  }
})();
