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

  // --- Another limit: the rules of `verdict` and `recommend`. ---
  const MOST_WINDOWS = 1e6;

  // 97.5 % of Student's t: a table, and beyond it the expansion around the normal quantile.
  const t = (df) => {
    if (df <= data.t.length) return data.t[df - 1];
    const z = 1.959963984540054;
    const [z3, z5, z7] = [z ** 3, z ** 5, z ** 7];
    return z + (z3 + z) / (4 * df) + (5 * z5 + 16 * z3 + 3 * z) / (96 * df ** 2) +
      (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * df ** 3) +
      (79 * z ** 9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * df ** 4);
  };

  const windowsNeeded = (cell, windows, limit) => {
    const [low, high] = cell.log_ratio_ci95;
    const deviation = (high - low) / 2 / t(windows - 1) * Math.sqrt(windows);
    const distance = Math.abs(cell.log_ratio - limit);
    const settles = (n) => t(n - 1) * deviation / Math.sqrt(n) <= distance;
    let [a, b] = [windows, windows];
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

  // Class, words and order.
  const verdict = (cell, { windows, windows_left: left }, percent) => {
    const limit = Math.log1p(percent / 100);
    const ends = cell.log_ratio_ci95;
    if (windows < 2 || !ends) return ["inconclusive", "one window", 1];
    if (ends[1] <= limit) return ["pass", "", 0];
    if (ends[0] > limit) return ["fail", "", 2];
    const needed = windowsNeeded(cell, windows, limit);
    if (needed === null) return ["inconclusive", "too close", 1];
    const short = needed <= left ? "" : `, text has ${left}`;
    return ["inconclusive", `needs ${needed} windows${short}`, 1];
  };

  const recommend = (cells, limit) => {
    const within = ({ ratio, change_ci95: ends }) =>
      ratio > 1 && ends && !ends.includes(null) && ends[1] <= limit && ends[0] >= -limit;
    return cells.filter(within).reduce(
      (best, cell) => {
        if (!best) return cell;
        const size = cell.bits - best.bits;
        return size < 0 || (size === 0 && cell.kld < best.kld) ? cell : best;
      }, null);
  };

  const tables = [...document.querySelectorAll("table[data-subject]")];
  const apply = (limit) => {
    data.subjects.forEach((subject, i) => {
      const chosen = recommend(subject.cells, limit);
      for (const row of tables[i].tBodies[0].rows) {
        const cell = subject.cells[row.dataset.cell];
        row.classList.toggle("chosen", cell === chosen);
        const [name, words, order] = verdict(cell, subject, limit);
        const place = row.querySelector("td.verdict");
        place.dataset.sort = order;
        place.firstElementChild.className = name;
        place.firstElementChild.textContent = name;
        place.lastElementChild.textContent = words;
      }
      const answer = document.querySelector(`.answer[data-subject="${i}"]`);
      const none = subject.windows < 2 ? ["No recommendation", data.one_window] : ["No codec", data.none_within];
      const [codec, says] = chosen ? [chosen.codec, chosen.summary] : none;
      answer.querySelector(".at").textContent = limit;
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

  for (const table of tables) {
    sortable(table);
    pair(table.closest("section"), table);
  }
  const field = document.getElementById("limit");
  if (field) {
    const reset = document.getElementById("reset");
    field.closest(".limit").hidden = false;
    const changed = () => {
      const limit = field.valueAsNumber;
      field.setAttribute("aria-invalid", String(!(limit >= 0)));
      if (!(limit >= 0)) return;
      reset.hidden = limit === data.limit;
      apply(limit);
    };
    // A reload keeps what was typed.
    if (field.valueAsNumber !== data.limit) changed();
    field.addEventListener("input", changed);
    reset.addEventListener("click", () => {
      field.value = data.limit;
      changed();
      field.focus();
    });
  }
})();
