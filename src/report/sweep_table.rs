//! stub
use super::figures::*;
use super::sweep::SweepReport;
pub fn render(report: &SweepReport) -> String {
    let mut s = String::new();
    for (_, c) in report.cells() {
        s += &brief(&c.result.figures);
        s.push('\n');
    }
    s
}
pub fn rows(so_far: &[CodecResult]) -> Vec<String> {
    so_far.iter().map(|c| format!("{} {}", c.figures.codec, brief(&c.figures))).collect()
}
pub fn brief(f: &CodecFigures) -> String {
    format!(
        "{:.2} bits, {:+.2} %, KLD {:.5}",
        f.bits_per_value, f.perplexity_change_percent, f.kld_mean
    )
}
