//! One page that holds everything: no file beside it, no request.
//!
//! Markup is written here, looks are `report.css`, and sorting and the limit field `report.js`.
//! Every string from outside passes [`escape`]; what the script needs is JSON in a data block.

mod columns;

use super::charts::{self, NamedChart};
use super::sweep::{CellReport, SubjectReport, SweepReport, UnfinishedCell};
use super::table::{
    bos, change_interval, compressed, dtype_and_device, kld_interval, signed, small, windows,
    windows_left,
};
use super::text::escape;
use crate::error::{Error, Result};
use crate::eval::stats::{Verdict, student_t_quantile};
use crate::model::source::Provenance;
use crate::whole_file::PAGE_MARK;
use base64::prelude::{BASE64_STANDARD, Engine};
use columns::COLUMNS;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt::Write;

const CSS: &str = include_str!("report.css");
const JS: &str = include_str!("report.js");
const METHOD: &str = include_str!("method.html");
/// Degrees of freedom with a t quantile of their own; above them the script's series is good to 1e-8.
const T_TABLE: usize = 40;

/// `charts`: of each subject.
pub fn render(report: &SweepReport, charts: &[Vec<NamedChart>]) -> Result<String> {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = page(&mut out, report, charts, &data(report)?);
    Ok(out)
}

fn page(
    out: &mut String,
    report: &SweepReport,
    charts: &[Vec<NamedChart>],
    data: &str,
) -> std::fmt::Result {
    let limit = report.max_ppl_increase;
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n{PAGE_MARK}\n<title>{}</title>\n\
         <style>\n{CSS}{}</style>\n</head>\n<body>\n<header>\n\
         <h1>What compressing the KV cache costs</h1>\n",
        script_hash(),
        escape(&title(report)),
        charts::theme::css(),
    )?;
    for (i, subject) in report.subjects.iter().enumerate() {
        answer(out, report, i, subject)?;
    }
    if report.subjects.is_empty() {
        out.push_str("<p class=\"answer\">No cell of this sweep has a result.</p>\n");
    } else {
        writeln!(
            out,
            "<p class=\"limit\" hidden><label for=\"limit\">Limit on the perplexity change</label> \
             <input id=\"limit\" type=\"number\" step=\"any\" inputmode=\"decimal\" \
             min=\"0\" value=\"{limit}\"> % <button type=\"button\" id=\"reset\" hidden>back to {limit} %\
             </button> <span class=\"note\">Answers, verdicts and ★ follow it; the pictures show \
             {limit} %.</span></p>"
        )?;
    }
    if let Some(note) = report.instruction_sets_note() {
        writeln!(out, "<p class=\"note\">{}</p>", escape(&note))?;
    }
    out.push_str("</header>\n<main>\n");
    for (i, (subject, charts)) in report.subjects.iter().zip(charts).enumerate() {
        section(out, report, i, subject, charts)?;
    }
    unfinished(out, "Failed", &report.failed)?;
    unfinished(out, "Missing", &report.missing)?;
    provenance(out, report)?;
    out.push_str(METHOD);
    write!(
        out,
        "</main>\n<footer>kvgauge {}, schema <code>{}</code></footer>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n{JS}</script>\n</body>\n</html>\n",
        escape(report.kvgauge_version),
        escape(report.schema)
    )
}

/// What the page's policy knows its one script by.
fn script_hash() -> String {
    BASE64_STANDARD.encode(Sha256::digest(format!("\n{JS}")))
}

fn title(report: &SweepReport) -> String {
    let names = report.subjects.iter().map(|s| s.subject.model.provenance.source.as_str());
    let mut names: Vec<&str> = names.collect();
    names.dedup();
    format!("KV cache compression: {}", names.join(", "))
}

/// The answer in a sentence; the script writes the same one for another limit.
fn answer(
    out: &mut String,
    report: &SweepReport,
    index: usize,
    subject: &SubjectReport,
) -> std::fmt::Result {
    let s = &subject.subject;
    let limit = report.max_ppl_increase;
    let found = subject.cells.iter().find(|cell| subject.recommends(cell));
    let (codec, says) = match found {
        Some(cell) => (cell.result.figures.codec.as_str(), summary(cell)),
        None if s.windows < 2 => ("No recommendation", ONE_WINDOW.into()),
        None => ("No codec", NONE_WITHIN.into()),
    };
    writeln!(
        out,
        "<p class=\"answer\" data-subject=\"{index}\"><span class=\"where\">{} on {}, context {}, \
         within ±<span class=\"at\">{limit}</span> % perplexity</span> \
         <strong class=\"codec\">{}</strong> <span class=\"says\">{}</span></p>",
        escape(&s.model.provenance.source),
        escape(&s.text.source),
        s.context,
        escape(codec),
        escape(&says)
    )
}

const ONE_WINDOW: &str = "is possible: one window has no interval.";
const NONE_WITHIN: &str = "smaller than f16 has its whole interval within the limit.";

fn summary(cell: &CellReport) -> String {
    let f = &cell.result.figures;
    format!(
        "takes {:.3} bits a value ({:.2}× less than f16); perplexity {} % ({}), mean KLD {} nats \
         a token ({}); verdict pass.",
        f.bits_per_value,
        f.compression_ratio,
        minus(&signed(f.perplexity_change_percent)),
        minus(&change_interval(f)),
        minus(&small(f.kld_mean)),
        minus(&kld_interval(f))
    )
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

fn section(
    out: &mut String,
    report: &SweepReport,
    index: usize,
    subject: &SubjectReport,
    charts: &[NamedChart],
) -> std::fmt::Result {
    let s = &subject.subject;
    write!(
        out,
        "<section id=\"subject-{}\">\n<h2><bdi>{}</bdi> <span class=\"on\">on</span> \
         <bdi>{}</bdi><span class=\"on\">, context {}</span></h2>\n",
        index + 1,
        escape(&s.model.provenance.source),
        escape(&s.text.source),
        s.context
    )?;
    writeln!(out, "<p class=\"setting\">{}</p>", escape(&setting(subject)))?;
    out.push_str("<div class=\"charts\">\n");
    for NamedChart { caption, chart, .. } in charts {
        write!(
            out,
            "<figure>\n{}<figcaption>{}</figcaption></figure>\n",
            chart.inline(),
            escape(caption)
        )?;
    }
    out.push_str("</div>\n");
    table(out, index, subject)?;
    recommended(out, report, subject)?;
    out.push_str("</section>\n");
    Ok(())
}

fn setting(subject: &SubjectReport) -> String {
    let s = &subject.subject;
    let bos = match s.bos_id {
        Some(id) => format!("with BOS (token {id})"),
        None => bos(s).into(),
    };
    format!(
        "Protocol {} · {} of the text’s {}, from number {} on, {} tokens each: {}, {} targets scored in each · {bos} · {} ({}) · baseline perplexity {:.4} · {}, {} layers, \
         {} heads on {} KV heads of {}",
        s.protocol,
        windows(s.windows),
        s.text.windows_available,
        s.first_window,
        s.context,
        compressed(s),
        s.scored_tokens / s.windows.max(1),
        dtype_and_device(s),
        s.instruction_set,
        subject.baseline.perplexity,
        s.model.architecture,
        s.model.layers,
        s.model.heads,
        s.model.kv_heads,
        s.model.head_dim
    )
}

fn table(out: &mut String, index: usize, subject: &SubjectReport) -> std::fmt::Result {
    let s = &subject.subject;
    write!(
        out,
        "<h3>All cells</h3>\n<p class=\"note\">Pairs such as <span class=\"ci\">+0.1 … +1.7</span> \
         are 95 % intervals. <span class=\"wide\">A heading sorts; what a column means is in its \
         tooltip and at the end.</span></p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All cells\">\n\
         <table data-subject=\"{index}\">\n<caption>Protocol {}, context {}, {}, {}, {}\
         </caption>\n<thead><tr>",
        s.protocol,
        s.context,
        windows(s.windows),
        bos(s),
        dtype_and_device(s)
    )?;
    for column in &COLUMNS {
        write!(
            out,
            "<th scope=\"col\" class=\"{}\" title=\"{}\"><button type=\"button\">{}</button></th>",
            column.class,
            escape(column.meaning),
            column.name
        )?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (i, cell) in subject.cells.iter().enumerate() {
        let chosen = if subject.recommends(cell) { " class=\"chosen\"" } else { "" };
        write!(out, "<tr data-cell=\"{i}\"{chosen}>")?;
        for column in &COLUMNS {
            let (sort, html) = (column.cell)(cell, subject);
            let tag = if column.class == "name" { "th scope=\"row\"" } else { "td" };
            let end = if column.class == "name" { "th" } else { "td" };
            write!(out, "<{tag} class=\"{}\" data-sort=\"{sort}\">{html}</{end}>", column.class)?;
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    Ok(())
}

fn recommended(
    out: &mut String,
    report: &SweepReport,
    subject: &SubjectReport,
) -> std::fmt::Result {
    let mut rows: Vec<_> = subject.recommended.iter().collect();
    rows.sort_by(|a, b| a.max_ppl_increase.total_cmp(&b.max_ppl_increase));
    out.push_str(
        "<h3>Recommended for the usual limits</h3>\n<div class=\"scroll\"><table class=\"small\">\
         <thead><tr><th scope=\"col\">limit</th><th scope=\"col\" class=\"name\">codec</th>\
         <th scope=\"col\">bits</th></tr></thead>\n<tbody>\n",
    );
    for row in rows {
        let named = |cell: &&CellReport| Some(&cell.result.figures.codec) == row.codec.as_ref();
        let (codec, bits) = match subject.cells.iter().find(named) {
            Some(cell) => {
                let f = &cell.result.figures;
                (format!("<code>{}</code>", escape(&f.codec)), format!("{:.3}", f.bits_per_value))
            }
            None => ("none of this sweep".into(), "–".into()),
        };
        let own = row.max_ppl_increase == report.max_ppl_increase;
        let class = if own { " class=\"own\"" } else { "" };
        writeln!(
            out,
            "<tr{class}><td>±{} %</td><td class=\"name\">{codec}</td><td>{bits}</td></tr>",
            row.max_ppl_increase
        )?;
    }
    out.push_str("</tbody></table></div>\n");
    Ok(())
}

fn unfinished(out: &mut String, title: &str, cells: &[UnfinishedCell]) -> std::fmt::Result {
    if cells.is_empty() {
        return Ok(());
    }
    let lower = title.to_lowercase();
    write!(out, "<section id=\"{lower}\">\n<h2>{title} cells</h2>\n<ul class=\"cells\">\n")?;
    for cell in cells {
        let context = cell.context.map_or(String::new(), |context| format!(", context {context}"));
        write!(
            out,
            "<li><code>{}</code> on {}, {}{context}",
            escape(&cell.codec),
            escape(&cell.model),
            escape(&cell.text)
        )?;
        if let Some(error) = &cell.error {
            write!(out, "<br><span class=\"error\">error:</span> {}", escape(error))?;
        }
        if let Some(hint) = &cell.hint {
            write!(out, "<br><span class=\"hint\">hint:</span> {}", escape(hint))?;
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ul>\n</section>\n");
    Ok(())
}

fn provenance(out: &mut String, report: &SweepReport) -> std::fmt::Result {
    out.push_str("<section id=\"again\">\n<h2>How to make this again</h2>\n");
    writeln!(out, "<p>With kvgauge {}:</p>", escape(report.kvgauge_version))?;
    for sweep in &report.sweeps {
        write!(
            out,
            "<pre><code>{}</code></pre>\n<p><code>{}</code> holds</p>\n<pre><code>{}</code></pre>\n",
            escape(&sweep.command),
            escape(&sweep.config_path),
            escape(&sweep.config)
        )?;
    }
    out.push_str(
        "<p class=\"note\">Seconds by stage are in <code>timings.json</code> beside the log: they \
         are no part of the results, which are the same bytes in every run.</p>\n<dl>\n",
    );
    let mut told = HashSet::new();
    for subject in &report.subjects {
        let s = &subject.subject;
        if told.insert(("model", &s.model.provenance.source)) {
            model(out, &s.model.provenance)?;
        }
        if told.insert(("text", &s.text.source)) {
            writeln!(
                out,
                "<dt>text <bdi>{}</bdi></dt>\n<dd>{} bytes, {} tokens, SHA-256 <code>{}</code></dd>",
                escape(&s.text.source),
                s.text.bytes,
                s.text.tokens,
                escape(&s.text.sha256)
            )?;
        }
    }
    out.push_str("</dl>\n<h3>Columns</h3>\n<dl class=\"columns\">\n");
    for column in &COLUMNS {
        writeln!(out, "<dt>{}</dt><dd>{}</dd>", column.name, escape(column.meaning))?;
    }
    out.push_str("</dl>\n</section>\n");
    Ok(())
}

fn model(out: &mut String, model: &Provenance) -> std::fmt::Result {
    write!(out, "<dt>model <bdi>{}</bdi></dt>\n<dd>", escape(&model.source))?;
    match &model.revision {
        Some(revision) => write!(out, "revision <code>{}</code>", escape(revision))?,
        None => out.push_str("local or embedded"),
    }
    for (file, hash) in &model.files_sha256 {
        write!(out, "<br>{} <code>{}</code>", escape(file), escape(hash))?;
    }
    out.push_str("</dd>\n");
    Ok(())
}

/// What the script works with.
#[derive(Serialize)]
struct Data<'a> {
    limit: f64,
    /// Of Student's t, 97.5 %, for 1 … [`T_TABLE`] degrees of freedom.
    t: Vec<f64>,
    one_window: &'static str,
    none_within: &'static str,
    subjects: Vec<SubjectData<'a>>,
}

#[derive(Serialize)]
struct SubjectData<'a> {
    windows: usize,
    /// That the text has, from the first one evaluated on.
    windows_left: usize,
    cells: Vec<CellData<'a>>,
}

#[derive(Serialize)]
struct CellData<'a> {
    codec: &'a str,
    bits: f64,
    ratio: f64,
    kld: f64,
    change_ci95: Option<[f64; 2]>,
    log_ratio: f64,
    log_ratio_ci95: Option<[f64; 2]>,
    verdict: Verdict,
    summary: String,
}

fn data(report: &SweepReport) -> Result<String> {
    let subjects = report
        .subjects
        .iter()
        .map(|subject| SubjectData {
            windows: subject.subject.windows,
            windows_left: windows_left(&subject.subject),
            cells: subject
                .cells
                .iter()
                .map(|report| {
                    let f = &report.result.figures;
                    CellData {
                        codec: &f.codec,
                        bits: f.bits_per_value,
                        ratio: f.compression_ratio,
                        kld: f.kld_mean,
                        change_ci95: f.perplexity_change_percent_ci95,
                        log_ratio: f.mean_log_ratio,
                        log_ratio_ci95: f.mean_log_ratio_ci95,
                        verdict: report.result.verdict,
                        summary: summary(report),
                    }
                })
                .collect(),
        })
        .collect();
    let data = Data {
        limit: report.max_ppl_increase,
        t: (1..=T_TABLE).map(|df| student_t_quantile(0.975, df as f64)).collect(),
        one_window: ONE_WINDOW,
        none_within: NONE_WITHIN,
        subjects,
    };
    let json = serde_json::to_string(&data)
        .map_err(|e| Error::system(format!("writing the report: {e}")))?;
    // Nothing in a data block may look like the end of it.
    Ok(json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}
