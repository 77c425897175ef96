//! One page that holds everything: no file beside it, no request.
//!
//! Markup is written here, looks are `report.css`, and sorting and the limit field `report.js`.
//! Every string from outside passes [`escape`]; what the script needs is JSON in a data block.

mod columns;
mod data;

use super::charts::{self, NamedChart};
use super::table::{
    bos, change_interval, compressed, dtype_and_device, kld_interval, signed, small, windows,
};
use super::text::escape;
use super::verdict;
use crate::error::Result;
use crate::eval::verdict::Limits;
use crate::model::source::Provenance;
use crate::results::sweep::{CellReport, SubjectReport, SweepReport, UnfinishedCell};
use crate::whole_file::PAGE_MARK;
use base64::prelude::{BASE64_STANDARD, Engine};
use columns::COLUMNS;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt::Write;

const CSS: &str = include_str!("report.css");
const JS: &str = include_str!("report.js");
const METHOD: &str = include_str!("method.html");

/// `charts`: of each subject and protocol, as [`SweepReport::by_protocol`] has them.
pub fn render(report: &SweepReport, charts: &[Vec<NamedChart>]) -> Result<String> {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = page(&mut out, report, charts, &data::data(report)?);
    Ok(out)
}

fn page(
    out: &mut String,
    report: &SweepReport,
    charts: &[Vec<NamedChart>],
    data: &str,
) -> std::fmt::Result {
    let Limits { max_ppl_change: limit, max_kld, min_top1 } = report.limits;
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
        let optional = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        writeln!(
            out,
            "<p class=\"limit\" hidden><label for=\"limit\">Limit on the perplexity change</label> \
             <input id=\"limit\" type=\"number\" step=\"any\" inputmode=\"decimal\" \
             min=\"0\" value=\"{limit}\"> % <label for=\"max-kld\">mean KLD at most</label> \
             <input id=\"max-kld\" type=\"number\" step=\"any\" inputmode=\"decimal\" min=\"0\" \
             placeholder=\"any\" value=\"{}\"> <label for=\"min-top1\">top-1 at least</label> \
             <input id=\"min-top1\" type=\"number\" step=\"any\" inputmode=\"decimal\" min=\"0\" \
             max=\"1\" placeholder=\"any\" value=\"{}\"> (share) \
             <button type=\"button\" id=\"reset\" hidden>back to the limits of the sweep</button> \
             <span class=\"note\">Answers, verdicts and ★ follow them; the pictures show \
             {limit} %.</span></p>",
            optional(max_kld),
            optional(min_top1)
        )?;
    }
    if let Some(note) = report.instruction_sets_note() {
        writeln!(out, "<p class=\"note\">{}</p>", escape(&note))?;
    }
    out.push_str("</header>\n<main>\n");
    let mut charts = charts.iter();
    for (i, subject) in report.subjects.iter().enumerate() {
        section(out, report, i, subject, &mut charts)?;
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

/// The answer in a sentence; the script writes the same one for other limits.
fn answer(
    out: &mut String,
    report: &SweepReport,
    index: usize,
    subject: &SubjectReport,
) -> std::fmt::Result {
    let s = &subject.subject;
    let found = subject.cells.iter().find(|cell| subject.recommends(cell));
    let (codec, says) = match (found, subject.baseline.meaningless(s.model.vocab_size)) {
        (_, Some(reason)) => ("Nothing", format!("can be said: {reason}; {}.", verdict::CHECK)),
        (Some(cell), None) => (cell.result.figures.codec.as_str(), summary(subject, cell)),
        (None, None) if s.windows < 2 => ("No recommendation", ONE_WINDOW.into()),
        (None, None) => ("No codec", none_within(subject)),
    };
    writeln!(
        out,
        "<p class=\"answer\" data-subject=\"{index}\"><span class=\"where\">{} on {}, context {}, \
         within <span class=\"at\">{}</span></span> \
         <strong class=\"codec\">{}</strong> <span class=\"says\">{}</span></p>",
        escape(&s.model.provenance.source),
        escape(&s.text.source),
        s.context,
        verdict::limits(&report.limits),
        escape(codec),
        escape(&says)
    )
}

const ONE_WINDOW: &str = "is possible: one window has no interval.";

fn none_within(subject: &SubjectReport) -> String {
    format!("smaller than f16 has its whole intervals within the limits under {}.", subject.under())
}

fn summary(subject: &SubjectReport, cell: &CellReport) -> String {
    let f = &cell.result.figures;
    let damage = |cell: &CellReport| {
        let f = &cell.result.figures;
        format!(
            "perplexity {} % ({}), mean KLD {} nats a token ({})",
            minus(&signed(f.perplexity_change_percent)),
            minus(&change_interval(f)),
            minus(&small(f.kld_mean)),
            minus(&kld_interval(f))
        )
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

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

fn section<'a>(
    out: &mut String,
    report: &SweepReport,
    index: usize,
    subject: &SubjectReport,
    charts: &mut impl Iterator<Item = &'a Vec<NamedChart>>,
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
    let views = subject.by_protocol();
    if subject.decode.is_some() {
        both(out, index, subject, &views)?;
    }
    for (place, (view, charts)) in views.iter().zip(charts).enumerate() {
        writeln!(out, "<div class=\"view\">")?;
        if views.len() > 1 {
            writeln!(out, "<h3>Protocol {}</h3>", view.subject.protocol)?;
        }
        writeln!(out, "<p class=\"setting\">{}</p>", escape(&setting(view)))?;
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
        table(out, index, place, view)?;
        out.push_str("</div>\n");
    }
    recommended(out, report, subject)?;
    out.push_str("</section>\n");
    Ok(())
}

/// Every codec under both protocols, side by side.
fn both(
    out: &mut String,
    index: usize,
    subject: &SubjectReport,
    views: &[SubjectReport],
) -> std::fmt::Result {
    out.push_str("<h3>Both protocols</h3>\n<ul class=\"tells\">\n");
    for view in views {
        writeln!(out, "<li>{}</li>", escape(view.subject.protocol.tells()))?;
    }
    write!(
        out,
        "</ul>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Both protocols\">\n\
         <table class=\"both\" data-both=\"{index}\">\n<thead><tr><th scope=\"col\" class=\"name\">codec</th>\
         <th scope=\"col\">bits</th>"
    )?;
    // Verdicts first: they are what the table is for.
    for view in views {
        let name = view.subject.protocol.name();
        write!(out, "<th scope=\"col\" class=\"verdict\">{name}: verdict</th>")?;
    }
    for view in views {
        let name = view.subject.protocol.name();
        write!(out, "<th scope=\"col\">{name}: ppl change</th><th scope=\"col\">{name}: KLD</th>")?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (i, cell) in subject.cells.iter().enumerate() {
        let f = &cell.result.figures;
        let chosen = if subject.recommends(cell) { " class=\"chosen\"" } else { "" };
        write!(
            out,
            "<tr data-cell=\"{i}\"{chosen}><th scope=\"row\" class=\"name\"><code>{}</code></th>\
             <td class=\"n\">{:.3}</td>",
            columns::breakable(&escape(&f.codec)),
            f.bits_per_value
        )?;
        let named = |view: &SubjectReport| {
            view.cells.iter().find(|cell| cell.result.figures.codec == f.codec).cloned()
        };
        for (place, view) in views.iter().enumerate() {
            match named(view) {
                Some(cell) => write!(
                    out,
                    "<td class=\"verdict\" data-view=\"{place}\">{}</td>",
                    columns::verdict_html(&cell, &view.subject)
                )?,
                None => write!(
                    out,
                    "<td class=\"why\"><span class=\"ci\">no verdict: {}</span></td>",
                    escape(subject.why_refused(&f.codec).unwrap_or("no result"))
                )?,
            }
        }
        for view in views {
            let Some(cell) = named(view) else {
                out.push_str("<td class=\"n\">–</td><td class=\"n\">–</td>");
                continue;
            };
            let f = &cell.result.figures;
            write!(
                out,
                "<td class=\"n\">{} % <span class=\"ci\">{}</span></td>\
                 <td class=\"n\">{} <span class=\"ci\">{}</span></td>",
                minus(&signed(f.perplexity_change_percent)),
                minus(&change_interval(f)),
                minus(&small(f.kld_mean)),
                minus(&kld_interval(f))
            )?;
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
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

fn table(out: &mut String, index: usize, view: usize, subject: &SubjectReport) -> std::fmt::Result {
    let s = &subject.subject;
    write!(
        out,
        "<h3>All cells</h3>\n<p class=\"note\">Pairs such as <span class=\"ci\">+0.1 … +1.7</span> \
         are 95 % intervals. <span class=\"wide\">A heading sorts; what a column means is in its \
         tooltip and at the end.</span></p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All cells\">\n\
         <table data-subject=\"{index}\" data-view=\"{view}\">\n<caption>Protocol {}, context {}, {}, {}, {}\
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
        "<h3>Recommended for the usual limits on the perplexity change</h3>\n<div class=\"scroll\"><table class=\"small\">\
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
        let own = row.max_ppl_increase == report.limits.max_ppl_change;
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
            "<li><code>{}</code>{} on {}, {}{context}",
            escape(&cell.codec),
            cell.protocol.as_ref().map_or(String::new(), |name| format!(" under {}", escape(name))),
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
