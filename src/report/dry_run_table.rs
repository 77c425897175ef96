//! The time and memory that a run would take, as text.

use super::align::align;
use super::text::one_line;
use crate::results::names::Headlines;
use crate::results::print::{bytes, counted, duration};
use crate::results::sweep::UnfinishedCell;
use crate::results::timings::{DryRun, SubjectEstimate};

/// `unit`: what a codec on a subject is called. Ends with a newline.
pub fn render(run: &DryRun, unit: &str) -> String {
    let (cells, headlines) = (run.cells(), run.headlines());
    let subjects = run.subjects.iter().map(|subject| render_subject(subject, &headlines));
    let mut out: String = subjects.collect();
    let one_failure = |a: &UnfinishedCell, b: &UnfinishedCell| {
        let of = |cell: &UnfinishedCell| UnfinishedCell { codec: String::new(), ..cell.clone() };
        of(a) == of(b)
    };
    let failed = run.failed.chunk_by(one_failure);
    out.extend(failed.map(|cells| render_failed(cells, &headlines)));
    if cells == 0 && !run.failed.is_empty() {
        return out;
    }
    let free = run.free_memory_bytes.map(|free| format!(" ({} free)", bytes(free)));
    out.push_str(&format!(
        "{}: about {} on this machine as busy as it is now, {} of memory{}; loading and \
         downloads come on top\n",
        counted(cells, unit),
        duration(run.seconds),
        bytes(run.memory_bytes),
        free.unwrap_or_default()
    ));
    out
}

fn render_subject(subject: &SubjectEstimate, headlines: &Headlines) -> String {
    let SubjectEstimate { model, text, context, protocol, windows, weights, .. } = subject;
    let (model, text) = (one_line(headlines.model(model)), one_line(headlines.text(text)));
    let title = ["codec", "bits", "time"].map(String::from).to_vec();
    let shared = ["prefill and baseline", "", &duration(subject.shared_seconds)];
    let cells = subject.cells.iter().map(|cell| {
        vec![cell.codec.clone(), format!("{:.3}", cell.bits_per_value), duration(cell.seconds)]
    });
    let rows: Vec<Vec<String>> =
        std::iter::once(title).chain([shared.map(String::from).to_vec()]).chain(cells).collect();
    format!(
        "{model} (weights {weights}) on {text}, {} of {context} tokens, protocol {protocol}\n\
         {}\n",
        counted(*windows, "window"),
        align(&rows)
    )
}

/// Cells that differ in their codec alone.
fn render_failed(cells: &[UnfinishedCell], headlines: &Headlines) -> String {
    let UnfinishedCell { model, text, context, protocol, error, hint, .. } = &cells[0];
    let (model, text) = (headlines.model(model), headlines.text(text));
    let context = context.map_or(String::new(), |context| format!(", context {context}"));
    let protocol = protocol.as_ref().map_or(String::new(), |name| format!(", protocol {name}"));
    let codecs: Vec<&str> = cells.iter().map(|cell| cell.codec.as_str()).collect();
    let title = format!("{model} on {text}{context}{protocol} fails: {}", codecs.join(", "));
    let said = [("error", error), ("hint", hint)];
    let said = said.into_iter().filter_map(|(what, said)| Some((what, said.as_ref()?)));
    let said = said.map(|(what, said)| format!("  {what}: {}\n", one_line(said)));
    format!("{}\n{}\n", one_line(&title), said.collect::<String>())
}
