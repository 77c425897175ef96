//! The page's tables.

use super::verdict_words;
use crate::results::columns::{Column, Level, PAGE, Row, Table, named};
use crate::results::print::{bos, dtype_and_device, windows};
use crate::results::sweep::{CellReport, SubjectReport, SweepReport};
use maud::{Markup, html};

/// Each figure's column, with that of its interval.
pub fn paired(columns: &[&'static Column]) -> Vec<(&'static Column, Option<&'static Column>)> {
    let mut pairs: Vec<(&Column, Option<&Column>)> = Vec::new();
    for column in columns {
        match pairs.last_mut() {
            Some((_, interval)) if column.is_interval() => *interval = Some(column),
            _ => pairs.push((column, None)),
        }
    }
    pairs
}

/// Every cell of a protocol, with every column. `index` and `view`: of the subject and the
/// protocol, for the script.
pub fn all(index: usize, view: usize, subject: &SubjectReport) -> Markup {
    let s = &subject.subject;
    let columns = paired(&named(PAGE));
    html! {
        h3 { "All cells" }
        p class="note" {
            "Pairs such as " span class="ci" { "+0.1 … +1.7" } " are 95 % intervals; ★: recommended \
             at the limit. "
            span class="wide" {
                "A heading sorts; what a column means is in its tooltip and at the end."
            }
        }
        div class="scroll" tabindex="0" role="region" aria-label="All cells" {
            table data-subject=(index) data-view=(view) {
                caption {
                    "Protocol " (s.protocol) ", context " (s.context) ", " (windows(s.windows)) ", "
                    (bos(s)) ", " (dtype_and_device(s))
                }
                thead { tr {
                    @for (column, interval) in &columns {
                        th scope="col" class=(class(column))
                            title=(column.tooltip(interval.is_some())) {
                            button type="button" { (column.heading(Table::Page)) }
                        }
                    }
                } }
                tbody { @for (i, cell) in subject.cells.iter().enumerate() {
                    @let row = Row::of_cell(cell, subject);
                    tr data-cell=(i) class=[subject.recommends(cell).then_some("chosen")] {
                        @for (column, interval) in &columns {
                            @let field = field(column, *interval, &row);
                            @if column.key == "codec" {
                                th scope="row" class="name" data-sort=(column.sort_key(&row)) {
                                    (field)
                                }
                            } @else {
                                td class=(class(column)) data-sort=(column.sort_key(&row)) {
                                    (field)
                                }
                            }
                        }
                    }
                    "\n"
                } }
            }
        }
    }
}

fn class(column: &Column) -> &'static str {
    match (column.key, column.kind, column.level) {
        ("codec", ..) => "name",
        ("verdict", ..) => "verdict",
        (_, "string", Level::Cell) => "name2",
        (_, "string", Level::Subject) => "name2 same",
        (.., Level::Cell) => "n",
        // The same in every row, and in the caption too.
        (.., Level::Subject) => "n same",
    }
}

fn field(column: &Column, interval: Option<&Column>, row: &Row) -> Markup {
    let text = column.text(row, Table::Page);
    html! {
        @match column.key {
            "codec" => { code { (breakable(&text)) } }
            "id" => { code { (text) } }
            "verdict" => (verdict(row)),
            _ => (text),
        }
        @if let Some(interval) = interval {
            " " span class="ci" { (interval.text(row, Table::Page)) }
        }
    }
}

/// The script writes the same for other limits.
fn verdict(row: &Row) -> Markup {
    let word = row.result.judgement.verdict.word();
    html! {
        span class=(word) { (word) } " "
        span class="ci" { (verdict_words::undecided(row.result, row.subject)) }
    }
}

/// A long name may be broken before the values' part.
fn breakable(name: &str) -> Markup {
    html! {
        @for (i, part) in name.split("/v:").enumerate() { @if i > 0 { "/" wbr; "v:" } (part) }
    }
}

/// Every codec under both protocols, side by side; verdicts first: they are what it is for.
pub fn both(index: usize, subject: &SubjectReport, views: &[SubjectReport]) -> Markup {
    let size = named(&["bits_per_value"]);
    let keys = [
        "perplexity_change_percent",
        "perplexity_change_percent_ci95",
        "kld_mean",
        "kld_mean_ci95",
    ];
    let damage = paired(&named(&keys));
    let of = |view: &SubjectReport, codec: &str| {
        view.cells.iter().find(|cell| cell.result.figures.codec == codec).cloned()
    };
    html! {
        h3 { "Both protocols" }
        ul class="tells" { @for view in views { li { (view.subject.protocol.tells()) } } }
        div class="scroll" tabindex="0" role="region" aria-label="Both protocols" {
            table class="both" data-both=(index) {
                thead { tr {
                    th scope="col" class="name" { "codec" }
                    @for column in &size { th scope="col" { (column.heading(Table::Page)) } }
                    @for view in views {
                        th scope="col" class="verdict" { (view.subject.protocol.name()) ": verdict" }
                    }
                    @for view in views {
                        @for (column, _) in &damage {
                            th scope="col" {
                                (view.subject.protocol.name()) ": "
                                (column.heading(Table::Markdown))
                            }
                        }
                    }
                } }
                tbody { @for (i, cell) in subject.cells.iter().enumerate() {
                    @let codec = cell.result.figures.codec.as_str();
                    tr data-cell=(i) class=[subject.recommends(cell).then_some("chosen")] {
                        th scope="row" class="name" { code { (breakable(codec)) } }
                        @for column in &size {
                            td class="n" { (field(column, None, &Row::of_cell(cell, subject))) }
                        }
                        @for (place, view) in views.iter().enumerate() {
                            @match of(view, codec) {
                                Some(cell) => td class="verdict" data-view=(place) {
                                    (verdict(&Row::of_cell(&cell, view)))
                                },
                                None => td class="why" { span class="ci" {
                                    "no verdict: " (subject.why_refused(codec).unwrap_or("no result"))
                                } },
                            }
                        }
                        @for view in views {
                            @let cell = of(view, codec);
                            @for (column, interval) in &damage {
                                td class="n" {
                                    @match &cell {
                                        Some(cell) => {
                                            (field(column, *interval, &Row::of_cell(cell, view)))
                                        }
                                        None => "–",
                                    }
                                }
                            }
                        }
                    }
                    "\n"
                } }
            }
        }
    }
}

/// The codec to use for each of the usual limits.
pub fn recommended(report: &SweepReport, subject: &SubjectReport) -> Markup {
    let mut rows: Vec<_> = subject.recommended.iter().collect();
    rows.sort_by(|a, b| a.max_ppl_increase.total_cmp(&b.max_ppl_increase));
    let of = |codec: &Option<String>| -> Option<&CellReport> {
        subject.cells.iter().find(|cell| Some(&cell.result.figures.codec) == codec.as_ref())
    };
    html! {
        h3 { "Recommended for the usual limits on the perplexity change" }
        div class="scroll" {
            table class="small" {
                thead { tr {
                    th scope="col" { "limit" } th scope="col" class="name" { "codec" }
                    th scope="col" { "bits" }
                } }
                tbody { @for row in rows {
                    @let own = row.max_ppl_increase == report.limits.max_ppl_change;
                    tr class=[own.then_some("own")] {
                        td { "±" (row.max_ppl_increase) " %" }
                        @match of(&row.codec) {
                            Some(cell) => {
                                td class="name" { code { (cell.result.figures.codec) } }
                                td { (format!("{:.3}", cell.result.figures.bits_per_value)) }
                            }
                            None => { td class="name" { "none of this sweep" } td { "–" } }
                        }
                    }
                } }
            }
        }
    }
}

/// The cheapest codec within a KL divergence, the best one within so many bytes.
pub fn within(subject: &SubjectReport) -> Markup {
    let f16 =
        subject.cells.first().map_or(0.0, |cell| cell.result.figures.cache_bytes_per_token_f16);
    let klds = subject.cheapest_within_kld.iter();
    let klds = klds.map(|answer| (answer.max_kld.to_string(), &answer.codec));
    let bytes = subject.best_within_bytes.iter().map(|answer| {
        let most = answer.max_bytes_per_token;
        (format!("{most:.0} ({:.0} %)", 100.0 * most / f16), &answer.codec)
    });
    html! {
        h3 { "Fewest bytes within a mean KLD" }
        (answers("mean KLD at most", klds))
        h3 { "Smallest mean KLD within so many bytes" }
        (answers("bytes a token (of 16 bits)", bytes))
        p class="note" {
            "Under " (subject.under()) ", whatever the perplexity does: the whole interval of the \
             KLD within its limit under each; of its KLDs the largest is compared. Each row has a \
             limit of its own: those that can be set on this page change nothing here."
        }
    }
}

fn answers<'a>(heading: &str, rows: impl Iterator<Item = (String, &'a Option<String>)>) -> Markup {
    html! {
        div class="scroll" {
            table class="small" {
                thead { tr { th scope="col" { (heading) } th scope="col" class="name" { "codec" } } }
                tbody { @for (limit, codec) in rows { tr {
                    td { (limit) }
                    td class="name" {
                        @match codec {
                            Some(codec) => { code { (breakable(codec)) } }
                            None => "none of this sweep",
                        }
                    }
                } } }
            }
        }
    }
}
