//! The page's tables of models side by side.

use super::tables::breakable;
use crate::report::models::{ANSWER_HEADS, LEGEND, MEAN, NONE, answer, bits, title, windows_of};
use crate::results::comparison::{ComparedCodec, Comparison};
use crate::results::print::{interval, minus, small};
use crate::results::sweep::SweepReport;
use maud::{Markup, html};

/// Of every comparison; nothing where there is none.
pub fn section(report: &SweepReport) -> Markup {
    html! {
        @if !report.comparisons.is_empty() {
            section id="models" {
                h2 { "Models side by side" }
                p class="note" { (LEGEND) " Bold: the model with the largest." }
                @for comparison in &report.comparisons { (compared(comparison)) "\n" }
            }
        }
    }
}

fn compared(comparison: &Comparison) -> Markup {
    let title = title(comparison, str::to_string);
    html! {
        h3 { bdi { (title) } }
        p class="note" { (windows_of(comparison)) }
        div class="scroll" tabindex="0" role="region" aria-label=(title) {
            table class="models" {
                thead { tr {
                    th scope="col" class="name" { button type="button" { "codec" } }
                    th scope="col" { button type="button" { "bits" } }
                    @for model in &comparison.models {
                        th scope="col" class="model" { button type="button" { (model.name) } }
                    }
                    th scope="col" { button type="button" { (MEAN) } }
                } }
                tbody { @for codec in &comparison.codecs { (row(codec)) "\n" } }
            }
        }
        @if !comparison.best_within_bits.is_empty() {
            div class="scroll answers" {
                table class="small best" {
                    thead { tr {
                        @for (at, head) in ANSWER_HEADS.iter().enumerate() {
                            th scope="col" class=[text(at)] { (head) }
                        }
                    } }
                    tbody { @for within in &comparison.best_within_bits { tr {
                        @for (at, field) in
                            answer(comparison, within, str::to_string).iter().enumerate()
                        {
                            td class=[text(at)] {
                                @if at == CODEC { code { (breakable(field)) } }
                                @else if at == FLAG { code { (field) } }
                                @else if at == KLD { (minus(field)) }
                                @else { (field) }
                            }
                        }
                    } } }
                }
            }
        }
    }
}

/// Of an answer's fields.
const CODEC: usize = 2;
const KLD: usize = 4;
const FLAG: usize = 6;

/// The class of an answer's field that is text.
fn text(at: usize) -> Option<&'static str> {
    [0, CODEC, 5, FLAG].contains(&at).then_some("name")
}

fn row(codec: &ComparedCodec) -> Markup {
    let name = &codec.codec;
    let key = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:e}"));
    let [_, most] = codec.bits_range();
    html! {
        tr {
            th scope="row" class="name" data-sort=(name) { code { (breakable(name)) } }
            td class="n" data-sort=(key(Some(most))) { (bits(codec)) }
            @for (at, (kld, ends)) in codec.kld_mean.iter().zip(&codec.kld_mean_ci95).enumerate() {
                td class=(if codec.worst_model == Some(at) { "n worst" } else { "n" })
                    data-sort=(key(*kld))
                {
                    @match kld {
                        Some(kld) => {
                            (minus(&small(*kld))) " "
                            span class="ci" { (minus(&interval(*ends, small))) }
                        }
                        None => (NONE),
                    }
                }
            }
            td class="n" data-sort=(key(codec.kld_geometric_mean)) {
                (codec.kld_geometric_mean.map_or(NONE.into(), |mean| minus(&small(mean))))
            }
        }
    }
}
