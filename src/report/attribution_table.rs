//! Where a codec's damage comes from, as text for a terminal.

use super::align::align_within;
use crate::results::attribution::{Attribution, PartFigures, Sum};
use crate::results::figures::CodecFigures;
use crate::results::print::{interval, percent, signed, signed_small, small};
use std::fmt::Write;

/// Of the parts of layers, the worst.
const LAYER_PARTS: usize = 5;
/// More heads than this are cut to the worst.
const HEADS: usize = 8;

/// Ends with a newline.
/// `width`: of the terminal, within which a table that is wider comes in blocks.
pub fn render(whole: &CodecFigures, attribution: &Attribution, width: Option<usize>) -> String {
    let Attribution { parts, sums } = attribution;
    let titles = ["part", "KLD", "95 % interval", "of whole", "ppl change", "95 % interval"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    rows.push(row("keys", &parts.key));
    rows.push(row("values", &parts.value));

    let of_layers = parts.layers.iter().flat_map(|of| {
        let name = |side| format!("layer {} {side}", of.layer);
        [(name("keys"), &of.key), (name("values"), &of.value)]
    });
    let of_layers: Vec<_> = of_layers.collect();
    let worst_layers = worst(&of_layers, LAYER_PARTS);
    let heads: Vec<_> =
        parts.heads.iter().map(|of| (format!("KV head {}", of.head), &of.both)).collect();
    let shown_heads = match heads.len() <= HEADS {
        true => heads.iter().collect(),
        false => worst(&heads, HEADS),
    };
    for (name, part) in worst_layers.iter().chain(&shown_heads) {
        rows.push(row(name, part));
    }

    let mut out = format!("{}: parts of the cache compressed alone, the rest exact", whole.codec);
    for (what, shown, of) in [
        ("layer parts", worst_layers.len(), of_layers.len()),
        ("KV heads", shown_heads.len(), heads.len()),
    ] {
        if shown < of {
            // Writing to a String cannot fail.
            let _ = write!(out, "; the {shown} worst of {of} {what}");
        }
    }
    out.push('\n');
    out.push_str(&align_within(&rows, width));
    let _ = writeln!(
        out,
        "sum of the parts {} (keys {}, values {}), whole {}\n{}",
        small(sums.layers.kld_mean),
        small(sums.layer_keys.kld_mean),
        small(sums.layer_values.kld_mean),
        small(whole.kld_mean),
        difference(&sums.layers),
    );
    out
}

fn row(name: &str, part: &PartFigures) -> Vec<String> {
    vec![
        name.into(),
        small(part.kld_mean),
        interval(part.kld_mean_ci95, small),
        part.kld_share.map_or("–".into(), percent),
        format!("{} %", signed(part.perplexity_change_percent)),
        interval(part.perplexity_change_percent_ci95, signed),
    ]
}

/// The largest KLDs first.
fn worst<'p, 'f>(
    parts: &'p [(String, &'f PartFigures)],
    most: usize,
) -> Vec<&'p (String, &'f PartFigures)> {
    let mut sorted: Vec<_> = parts.iter().collect();
    sorted.sort_by(|(_, a), (_, b)| b.kld_mean.total_cmp(&a.kld_mean));
    sorted.truncate(most);
    sorted
}

fn difference(sum: &Sum) -> String {
    let interval = match sum.kld_minus_joint_ci95 {
        Some([low, high]) => {
            format!("95 % interval {} … {}", signed_small(low), signed_small(high))
        }
        None => "one window".into(),
    };
    let ratio = sum.kld_over_joint.map(|ratio| format!("; the sum is {ratio:.2} of the whole"));
    let difference = signed_small(sum.kld_minus_joint);
    format!("difference {difference}, {interval}{}", ratio.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;

    fn lines(layers: usize, heads: usize, windows: usize) -> Vec<String> {
        let (whole, attribution) = fixture::attribution("int4-g64", layers, heads, windows);
        render(&whole, &attribution, None).lines().map(String::from).collect()
    }

    #[test]
    fn the_worst_parts_are_named_in_order() {
        let lines = lines(30, 3, 5);
        // Title, head, keys, values, five parts, three heads, the sum and its difference.
        assert_eq!(lines.len(), 1 + 1 + 2 + 5 + 3 + 2, "{lines:#?}");
        assert!(lines[0].ends_with("; the 5 worst of 60 layer parts"), "{}", lines[0]);
        assert!(lines[2].starts_with("keys ") && lines[3].starts_with("values "));
        let klds: Vec<f64> = lines[4..9]
            .iter()
            .map(|line| line.split_whitespace().nth(3).unwrap().parse().unwrap())
            .collect();
        assert!(klds.is_sorted_by(|a, b| a >= b), "{klds:?}");
        assert!(lines[9].starts_with("KV head 0 ") && lines[11].starts_with("KV head 2 "));
        assert!(lines[12].starts_with("sum of the parts 0."), "{}", lines[12]);
        assert!(lines[12].contains(", whole 0."), "{}", lines[12]);
        assert!(lines[13].contains("95 % interval") && lines[13].ends_with(" of the whole"));
        assert!(lines.iter().all(|line| line.chars().count() <= 110), "{lines:#?}");
    }

    #[test]
    fn one_of_everything_and_many_heads_fit_too() {
        let one = lines(1, 1, 1);
        assert_eq!(one.len(), 1 + 1 + 2 + 2 + 1 + 2, "{one:#?}");
        assert!(!one[0].contains("worst"), "{}", one[0]);
        assert!(one.last().unwrap().contains(", one window; the sum is "), "{one:#?}");
        let many = lines(2, 32, 3);
        assert!(many[0].ends_with("; the 8 worst of 32 KV heads"), "{}", many[0]);
    }
}
