//! One page that holds everything: no file beside it, no request.
//!
//! Markup is written with maud, which escapes every string that is not marked as markup; looks are
//! `report.css`, and sorting and the limit fields `report.js`, which reads figures from a block of
//! JSON.

mod data;
mod tables;

use super::charts::{self, NamedChart};
use super::text::printable;
use crate::error::Result;
use crate::eval::verdict::Limits;
use crate::model::source::Provenance;
use crate::results::columns::{self, PAGE};
use crate::results::names::Headlines;
use crate::results::print::{bos, compressed, dtype_and_device, shape_words, windows};
use crate::results::print::{interval, minus, signed, small};
use crate::results::subject::ModelInfo;
use crate::results::sweep::{CellReport, SubjectReport, SweepReport, UnfinishedCell};
use crate::results::verdict_words;
use crate::whole_file::PAGE_MARK;
use base64::prelude::{BASE64_STANDARD, Engine};
use maud::{Markup, PreEscaped, html};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

const CSS: &str = include_str!("report.css");
const JS: &str = include_str!("report.js");
const METHOD: &str = include_str!("method.html");

/// `charts`: of each subject and protocol, as [`SweepReport::by_protocol`] has them.
pub fn render(report: &SweepReport, charts: &[Vec<NamedChart>]) -> Result<String> {
    let page = page(report, charts, data::data(report)?);
    Ok(page.into_string().chars().map(printable).collect())
}

fn page(report: &SweepReport, charts: &[Vec<NamedChart>], data: String) -> Markup {
    let theme = charts::theme::css();
    let mut charts = charts.iter();
    // The bytes that the policy knows the script by.
    let script = format!("\n{JS}");
    let hash = BASE64_STANDARD.encode(Sha256::digest(&script));
    html! {
        // In small letters, by which a page of ours is known.
        (PreEscaped("<!doctype html>\n"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content={
                    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" (hash)
                    "'; base-uri 'none'; form-action 'none'"
                };
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                (PreEscaped(PAGE_MARK)) "\n"
                title { (title(report)) }
                style { (PreEscaped(CSS)) (PreEscaped(theme)) }
            }
            "\n"
            body {
                header {
                    h1 { "What compressing the KV cache costs" } "\n"
                    @for (i, subject) in report.subjects.iter().enumerate() {
                        (answer(report, i, subject)) "\n"
                    }
                    @if report.subjects.is_empty() {
                        p class="answer" { "No cell of this sweep has a result." }
                    } @else { (limit_fields(&report.limits)) }
                    @if let Some(note) = report.instruction_sets_note() { p class="note" { (note) } }
                }
                "\n"
                main {
                    @for (i, subject) in report.subjects.iter().enumerate() {
                        (section(report, i, subject, &mut charts)) "\n"
                    }
                    @let headlines = report.headlines();
                    (unfinished("Failed", &report.failed, &headlines))
                    (unfinished("Missing", &report.missing, &headlines))
                    (provenance(report)) "\n"
                    (PreEscaped(METHOD))
                }
                footer { "kvgauge " (report.kvgauge_version) ", schema " code { (report.schema) } } "\n"
                // JSON in which nothing looks like the end of the block.
                script type="application/json" id="data" { (PreEscaped(data)) } "\n"
                script { (PreEscaped(script)) }
            }
        }
        "\n"
    }
}

fn title(report: &SweepReport) -> String {
    let names = report.subjects.iter().map(|s| s.subject.model.name());
    let mut names: Vec<&str> = names.collect();
    names.dedup();
    format!("KV cache compression: {}", names.join(", "))
}

/// Hidden until the script, which answers to them, shows them.
fn limit_fields(limits: &Limits) -> Markup {
    let Limits { max_ppl_change: limit, max_kld, min_top1, max_bytes_per_token } = limits;
    html! {
        p class="limit" hidden {
            label for="limit" { "Limit on the perplexity change" } " "
            input id="limit" type="number" step="any" inputmode="decimal" min="0" value=(limit);
            " % " label for="max-kld" { "mean KLD at most" } " "
            input id="max-kld" type="number" step="any" inputmode="decimal" min="0"
                placeholder="any" value=(empty_if_none(*max_kld));
            " " label for="min-top1" { "top-1 at least" } " "
            input id="min-top1" type="number" step="any" inputmode="decimal" min="0" max="1"
                placeholder="any" value=(empty_if_none(*min_top1));
            " (share) "
            label for="max-bytes" { "bytes a token at most" } " "
            input id="max-bytes" type="number" step="any" inputmode="decimal" min="0"
                placeholder="any" value=(empty_if_none(*max_bytes_per_token));
            " "
            button type="button" id="reset" hidden { "back to the limits of the sweep" } " "
            span class="note" {
                "Answers, verdicts and ★ follow them; the pictures show " (limit) " %."
            }
        }
        "\n"
    }
}

fn empty_if_none(limit: Option<f64>) -> String {
    limit.map_or(String::new(), |limit| limit.to_string())
}

/// The answer in a sentence; the script writes the same one for other limits.
fn answer(report: &SweepReport, index: usize, subject: &SubjectReport) -> Markup {
    let s = &subject.subject;
    let found = subject.cells.iter().find(|cell| subject.recommends(cell));
    let (codec, says) = match (found, subject.baseline.meaningless(s.model.vocab_size)) {
        (_, Some(reason)) => {
            ("Nothing", format!("can be said: {reason}; {}.", verdict_words::CHECK))
        }
        (Some(cell), None) => (cell.result.figures.codec.as_str(), summary(subject, cell)),
        (None, None) if s.windows < 2 => ("No recommendation", ONE_WINDOW.into()),
        (None, None) => ("No codec", none_within(subject)),
    };
    html! {
        p class="answer" data-subject=(index) {
            span class="where" {
                (s.model.name()) " on " (s.text.name()) ", context " (s.context)
                ", within " span class="at" { (verdict_words::limits(&report.limits)) }
            }
            " " strong class="codec" { (codec) } " " span class="says" { (says) }
        }
    }
}

const ONE_WINDOW: &str = "is possible: one window has no interval.";

fn none_within(subject: &SubjectReport) -> String {
    format!("smaller than f16 has its whole intervals within the limits under {}.", subject.under())
}

fn summary(subject: &SubjectReport, cell: &CellReport) -> String {
    let f = &cell.result.figures;
    let damage = |cell: &CellReport| {
        let f = &cell.result.figures;
        minus(&format!(
            "perplexity {} % ({}), mean KLD {} nats a token ({})",
            signed(f.perplexity_change_percent),
            interval(f.perplexity_change_percent_ci95, signed),
            small(f.kld_mean),
            interval(f.kld_mean_ci95, small)
        ))
    };
    let costs = match subject.decode_cell(&f.codec) {
        Some(decode) => format!("prefix: {}; decode: {}", damage(cell), damage(decode)),
        None => damage(cell),
    };
    format!(
        "takes {:.3} bits a value ({:.2}× less than f16); {costs}; passes under {}.",
        f.bits_per_value,
        f.compression_ratio,
        subject.under()
    )
}

fn section<'a>(
    report: &SweepReport,
    index: usize,
    subject: &SubjectReport,
    charts: &mut impl Iterator<Item = &'a Vec<NamedChart>>,
) -> Markup {
    let s = &subject.subject;
    let views = subject.by_protocol();
    html! {
        section id={ "subject-" (index + 1) } {
            h2 {
                bdi { (s.model.name()) } " " span class="on" { "on" } " "
                bdi { (s.text.name()) } span class="on" { ", context " (s.context) }
            }
            @if subject.decode.is_some() { (tables::both(index, subject, &views)) }
            @for (place, (view, charts)) in views.iter().zip(charts).enumerate() {
                div class="view" {
                    @if views.len() > 1 { h3 { "Protocol " (view.subject.protocol) } }
                    p class="setting" { (setting(view)) }
                    div class="charts" {
                        @for NamedChart { caption, chart, .. } in charts {
                            figure { (chart.inline()) figcaption { (caption) } } "\n"
                        }
                    }
                    (tables::all(index, place, view))
                }
            }
            (tables::recommended(report, subject))
            (tables::within(subject))
        }
    }
}

fn setting(subject: &SubjectReport) -> String {
    let s = &subject.subject;
    let bos = match s.bos_id {
        Some(id) => format!("with BOS (token {id})"),
        None => bos(s).into(),
    };
    let available = s.text.windows_available;
    let of = available.map_or("of the text".into(), |all| format!("of the text’s {all}"));
    format!(
        "Protocol {} · {} {of}, from number {} on, {} tokens each: {}, {} targets scored in each · {bos} · {} ({}) · baseline perplexity {:.4} · {}, {}",
        s.protocol,
        windows(s.windows),
        s.first_window,
        s.context,
        compressed(s),
        s.scored_tokens / s.windows.max(1),
        dtype_and_device(s),
        s.instruction_set,
        subject.baseline.perplexity,
        s.model.architecture,
        shape_words(&s.model)
    )
}

fn unfinished(title: &str, cells: &[UnfinishedCell], headlines: &Headlines) -> Markup {
    let item = |cell: &UnfinishedCell| {
        html! {
            li {
                code { (cell.codec) }
                @if let Some(name) = &cell.protocol { " under " (name) }
                " on " (headlines.model(&cell.model)) ", " (headlines.text(&cell.text))
                @if let Some(context) = cell.context { ", context " (context) }
                @if let Some(error) = &cell.error {
                    br; span class="error" { "error:" } " " (error)
                }
                @if let Some(hint) = &cell.hint { br; span class="hint" { "hint:" } " " (hint) }
            }
            "\n"
        }
    };
    html! {
        @if !cells.is_empty() {
            section id=(title.to_lowercase()) {
                h2 { (title) " cells" }
                ul class="cells" { @for cell in cells { (item(cell)) } }
            }
        }
    }
}

fn provenance(report: &SweepReport) -> Markup {
    let mut told = HashSet::new();
    html! {
        section id="again" {
            h2 { "How to make this again" }
            p { "With kvgauge " (report.kvgauge_version) ":" }
            @for sweep in &report.sweeps {
                pre { code { (sweep.command) } }
                p { code { (sweep.config_path) } " holds" }
                pre { code { (sweep.config) } }
            }
            p class="note" {
                "Seconds by stage are in " code { "timings.json" } " beside the log: they are no \
                 part of the results, which are the same bytes in every run."
            }
            dl {
                @for subject in &report.subjects {
                    @let s = &subject.subject;
                    @if told.insert(("model", &s.model.provenance.source)) {
                        (model(&s.model))
                    }
                    @if told.insert(("text", &s.text.source)) {
                        dt { "text " bdi { (s.text.name()) } }
                        dd {
                            (s.text.bytes) " bytes, "
                            @if let Some(tokens) = s.text.tokens { (tokens) " tokens, " }
                            "SHA-256 "
                            code { (s.text.sha256) }
                        }
                    }
                }
            }
            h3 { "Columns" }
            dl class="columns" {
                @for (column, interval) in tables::paired(&columns::named(PAGE)) {
                    dt { (column.heading(columns::Table::Page)) }
                    dd { (column.tooltip(interval.is_some())) }
                }
            }
        }
    }
}

fn model(model: &ModelInfo) -> Markup {
    let Provenance { revision, files_sha256, .. } = &model.provenance;
    html! {
        dt { "model " bdi { (model.name()) } }
        dd {
            @match revision {
                Some(revision) => { "revision " code { (revision) } }
                None => { "local or embedded" }
            }
            @for (file, hash) in files_sha256 { br; (file) " " code { (hash) } }
        }
    }
}
