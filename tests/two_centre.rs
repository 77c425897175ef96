//! The two-centre codec behind `kvgauge4`: what it promises, on numbers made for it. That its bytes
//! mean what FORMAT.md says is for the decoder in numpy.

use half::{bf16, f16};
use kvgauge::codec::{
    Codec, Element, Geometry, Packing, Payload, RotaryEmbedding, RotaryPairs, RotaryTable,
    TensorCodec,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

fn codec(name: &str) -> TensorCodec {
    name.parse::<Codec>().unwrap().key
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut draw = StdRng::seed_from_u64(seed);
    (0..count).map(|_| StandardNormal.sample(&mut draw)).collect()
}

/// Decoded values and stored bits a value.
fn round_trip<T: Element>(name: &str, values: &[T], geometry: &Geometry) -> (Vec<T>, f64) {
    let (payload, _) = codec(name).compress_measured(values, geometry).unwrap();
    let mut out = vec![T::default(); values.len()];
    payload.decompress(geometry, &mut out);
    (out, 8.0 * payload.stored_bytes() as f64 / values.len() as f64)
}

fn snr(x: &[f32], y: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let energy: f64 = x.iter().map(|x| square(*x)).sum();
    let error: f64 = x.iter().zip(y).map(|(x, y)| square(x - y)).sum();
    10.0 * (energy / error).log10()
}

/// The projection of what is decoded on the original is the original's length, but for the fineness of
/// scales: nothing is flattened.
#[test]
fn blocks_by_a_trellis_are_unbiased() {
    let (tokens, dim) = (512, 64);
    let mut values = noise(tokens * dim, 13);
    values[..dim].iter_mut().for_each(|x| *x += 100.0);
    let bias = |name: &str| {
        let (decoded, _) = round_trip(name, &values, &Geometry::rows(tokens, dim));
        let (x, y) = (&values[dim..], &decoded[dim..]);
        let own: f64 = x.iter().map(|x| f64::from(x * x)).sum();
        x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>() / own - 1.0
    };
    for name in ["te13", "te20", "te24", "te26"] {
        assert!(bias(name).abs() < 0.002, "{name}: {}", bias(name));
    }
    assert!(bias("tc16") < -0.005);
}

/// Gaussian numbers lose nothing to a centre. Lloyd-Max levels with the best scale for all of a
/// Gaussian have 20.22 dB at 16 levels and 21.66 at 19; a scale for each block gains on them.
#[test]
fn gaussian_blocks_keep_what_fitted_levels_can() {
    for (head_dim, seed) in [(64, 1), (128, 2), (80, 3), (96, 4), (100, 5), (192, 6), (256, 7)] {
        let tokens = 4096;
        // Tokens around nothing: the first one far off, so that none is nearer to it.
        let mut values = noise(tokens * head_dim, seed);
        values[..head_dim].iter_mut().for_each(|x| *x += 100.0);
        let geometry = Geometry::rows(tokens, head_dim);
        // Shannon's bound of the others' bits is 9.78, 15.05, 18.06 and 19.57 dB; without a trellis and
        // codes of their own lengths, the best 8 levels have 14.62 at 3 bits.
        let levels = [("tc16", 20.9, 21.8), ("tc19", 22.3, 23.2)];
        let trellises =
            [("te13", 7.0, 8.5), ("te20", 13.0, 14.5), ("te24", 16.3, 17.5), ("te26", 17.8, 19.0)];
        for (name, least, most) in levels.into_iter().chain(trellises) {
            let (decoded, bits) = round_trip(name, &values, &geometry);
            let found = snr(&values[head_dim..], &decoded[head_dim..]);
            assert!((least..most).contains(&found), "{name}, {head_dim}: {found} dB");
            if [64, 128, 256].contains(&head_dim) {
                let codes = match name.split_at(2) {
                    ("te", eight) => eight.parse::<f64>().unwrap() / 8.0,
                    (_, count) => {
                        if count == "16" {
                            4.0
                        } else {
                            4.25
                        }
                    }
                };
                assert!((bits - codes - 0.125).abs() < 0.01, "{name}: {bits}");
            }
        }
    }
}

/// Short blocks are coarse, never noise: no codec makes of one what is longer than it by much.
#[test]
fn short_blocks_lose_less_than_they_hold() {
    for (head_dim, seed) in [(8, 11), (12, 12), (16, 13), (20, 14)] {
        let tokens = 4096;
        let mut values = noise(tokens * head_dim, seed);
        values[..head_dim].fill(0.0);
        let geometry = Geometry::rows(tokens, head_dim);
        for (name, least) in [("te13", 0.5), ("te20", 7.0), ("te24", 10.0), ("te26", 11.0)] {
            for name in [name.to_string(), format!("{name}-shape")] {
                let (decoded, _) = round_trip(&name, &values, &geometry);
                // Shaping leaves a larger error where it costs less.
                let least = if name.ends_with("-shape") { least - 2.5 } else { least };
                // Eight values hardly fit beside what a number takes of its own.
                let least = if head_dim == 8 { -0.5 } else { least };
                let found = snr(&values[head_dim..], &decoded[head_dim..]);
                assert!(found > least, "{name}, {head_dim}: {found} dB");
                let largest =
                    |values: &[f32]| values.iter().fold(0f32, |most, x| most.max(x.abs()));
                assert!(largest(&decoded) < 3.0 * largest(&values), "{name}, {head_dim}");
            }
        }
    }
}

/// Values beside zeros, too small to square, of a block whose levels point away from it.
#[test]
fn a_scale_is_never_made_of_nothing() {
    let away = [-2f32, 0.0, -4.0, 2.0, -4.0, -2.0, 2.0, 0.0];
    let mut values = vec![0f32; 16];
    values[8..].copy_from_slice(&away);
    let (decoded, _) = round_trip("te13", &values, &Geometry::rows(2, 8));
    assert!(decoded.iter().all(|x| x.abs() <= 8.0), "{decoded:?}");
    for name in ["te13", "te20", "te24", "te26", "te26-shape"] {
        let mut values = vec![1f32; 128];
        values[64..].fill(0.0);
        values[64] = -1e-24;
        let (decoded, _) = round_trip(name, &values, &Geometry::rows(2, 64));
        assert!(decoded[64..].iter().all(|x| x.abs() < 0.1), "{name}: {decoded:?}");
    }
}

/// One token far below the others is no reason to store all of them more coarsely.
#[test]
fn a_small_token_costs_the_others_nothing() {
    let (tokens, dim) = (64, 64);
    let mut values: Vec<f32> = noise(tokens * dim, 15).iter().map(|x| 0.1 * x).collect();
    values[..dim].fill(0.0);
    values[0] = 400.0;
    let geometry = Geometry::rows(tokens, dim);
    for (name, least) in [("te26", 17.0), ("te13", 6.5), ("tc19", 21.5)] {
        let of = |last: f32| {
            let mut values = values.clone();
            values[63 * dim..].iter_mut().for_each(|x| *x *= last);
            let (decoded, _) = round_trip(name, &values, &geometry);
            snr(&values[dim..63 * dim], &decoded[dim..63 * dim])
        };
        let (usual, beside) = (of(1.0), of(0.01));
        assert!(usual > least && (usual - beside).abs() < 1e-9, "{name}: {usual}, {beside}");
    }
}

/// A mean that all tokens share costs nothing after the first few; nor does a second group of tokens
/// around the first one, which a mean alone would lose.
#[test]
fn both_centres_are_found() {
    let (tokens, dim) = (2048, 64);
    let mean: Vec<f32> = noise(dim, 5).iter().map(|x| 10.0 * x).collect();
    let sink: Vec<f32> = noise(dim, 6);
    let mut values = noise(tokens * dim, 7);
    for (token, row) in values.chunks_exact_mut(dim).enumerate() {
        let centre = if token % 16 == 0 { &sink } else { &mean };
        let spread = if token % 16 == 0 { 0.05 } else { 1.0 };
        for (x, centre) in row.iter_mut().zip(centre) {
            *x = *x * spread + centre;
        }
    }
    let geometry = Geometry::rows(tokens, dim);
    let (decoded, _) = round_trip("tc19", &values, &geometry);
    let rows = |keep: &dyn Fn(usize) -> bool, values: &[f32]| -> Vec<f32> {
        let rows = values.chunks_exact(dim).enumerate().skip(256).filter(|(token, _)| keep(*token));
        rows.flat_map(|(_, row)| row.to_vec()).collect()
    };
    let error = |keep: &dyn Fn(usize) -> bool| {
        let (x, y) = (rows(keep, &values), rows(keep, &decoded));
        (x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / x.len() as f64)
            .sqrt()
    };
    // 22.5 dB below what is left without the centre.
    let usual = error(&|token| token % 16 != 0);
    assert!((0.06..0.09).contains(&usual), "{usual}");
    let sinks = error(&|token| token % 16 == 0);
    // √2 of their spread: the first token has its own.
    assert!((0.0045..0.006).contains(&sinks), "{sinks}");
}

/// The stored form of a token does not change when more follow: a stream's promise.
#[test]
fn later_tokens_change_nothing() {
    for dim in [64, 80, 100, 128, 192, 256] {
        later_tokens_change_nothing_of(dim);
    }
}

fn later_tokens_change_nothing_of(dim: usize) {
    let (heads, tokens) = (2, 200);
    let values: Vec<f16> =
        noise(heads * tokens * dim, 8).iter().map(|x| f16::from_f32(*x)).collect();
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(1e4, dim), tokens);
    for name in ["kvgauge4", "tc16", "kvgauge3", "te13"] {
        let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
        let (whole, _) = round_trip(name, &values, &geometry);
        for some in [1, 2, 3, 15, 16, 17, 64, 131] {
            let cut = |values: &[f16]| -> Vec<f16> {
                let heads = values.chunks_exact(tokens * dim);
                heads.flat_map(|head| head[..some * dim].to_vec()).collect()
            };
            let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(some, dim) };
            let (part, _) = round_trip(name, &cut(&values), &geometry);
            assert!(part == cut(&whole), "{name}, {dim}: {some} tokens");
        }
    }
}

/// The first token is exact in 16 bits, zeros are exact, and so is what repeats.
#[test]
fn what_is_exact() {
    let geometry = Geometry::rows(50, 64);
    let values: Vec<bf16> = noise(100 * 64, 9).iter().map(|x| bf16::from_f32(*x)).collect();
    let (decoded, _) = round_trip("tc16", &values, &geometry);
    for head in [0, 50 * 64] {
        assert_eq!(values[head..head + 64], decoded[head..head + 64]);
    }
    let zeros = vec![0f32; 100 * 64];
    assert!(round_trip("tc16", &zeros, &geometry).0 == zeros);
    assert!(round_trip("tc19", &zeros, &geometry).0 == zeros);
    let row: Vec<f32> = values[..64].iter().map(|x| x.to_f32()).collect();
    let same = row.repeat(100);
    assert!(round_trip("tc16", &same, &geometry).0 == same);
    assert!(round_trip("te26", &zeros, &geometry).0 == zeros);
    assert!(round_trip("te13", &same, &geometry).0 == same);
    let nothing: [f16; 0] = [];
    let none = codec("tc19").compress_measured(&nothing, &Geometry::rows(0, 64)).unwrap();
    assert!(none.0.is_empty());
}

#[test]
fn the_magnitude_of_a_tensor_does_not_matter() {
    let values: Vec<f32> = noise(4 * 256 * 64, 10);
    let geometry = Geometry::rows(256, 64);
    for name in ["tc19", "te26", "te13"] {
        let quality = |unit: f32| {
            let scaled: Vec<f32> = values.iter().map(|x| x * unit).collect();
            snr(&scaled, &round_trip(name, &scaled, &geometry).0)
        };
        let usual = quality(1.0);
        for unit in [1e30, 3e36, 1e5, 300.0, 0.01, 1e-6, 1e-30] {
            let found = quality(unit);
            assert!(
                (found - usual).abs() < 0.1,
                "{name}, {unit}: {found} dB, usual ones {usual} dB"
            );
        }
    }
}

/// The same bytes at any number of threads.
#[test]
fn threads_do_not_change_a_bit() {
    let values = noise(8 * 100 * 128, 11);
    let rope = RotaryTable::new(&RotaryTable::frequencies_of(5e5, 128), 100);
    let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(100, 128) };
    for name in ["kvgauge4", "kvgauge2"] {
        let Some(packing): Option<Packing> = codec(name).packing().copied() else { unreachable!() };
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Payload::pack(&values, packing, &geometry).unwrap())
        };
        assert!(with(1) == with(2) && with(1) == with(5));
    }
}

#[test]
fn what_it_cannot_store_is_refused() {
    let values = vec![1f32; 3 * 10];
    let error = codec("tc16").compress_measured(&values, &Geometry::rows(3, 10)).unwrap_err();
    assert!(error.to_string().contains("a multiple of 4 values, 8 or more, found 10"), "{error}");
    let values = vec![1f32; 3 * 64];
    let error = codec("kvgauge4").compress_measured(&values, &Geometry::rows(3, 64)).unwrap_err();
    assert!(error.to_string().contains("prerope"), "{error}");
    let bad = [vec![0f32; 70], vec![f32::NAN], vec![0f32; 121]].concat();
    let error = codec("tc16").compress_measured(&bad, &Geometry::rows(3, 64)).unwrap_err();
    assert!(error.to_string().contains("index 70"), "{error}");
}

/// Noise shaping moves the error from slow rotary frequencies, where queries have most energy, to fast
/// ones, on every head size, whichever way its pairs lie.
#[test]
fn errors_move_to_fast_frequencies() {
    let dims = [16, 32, 64, 80, 96, 100, 120, 128, 192, 256];
    let cases = dims.map(|dim| (dim, RotaryPairs::Halves)).into_iter();
    for (dim, pairs) in cases.chain([64, 128].map(|dim| (dim, RotaryPairs::Neighbours))) {
        let (tokens, half) = (512, dim / 2);
        let values = noise(tokens * dim, 12);
        let frequencies = RotaryTable::frequencies_of(1e4, dim);
        let rope = RotaryTable::of(RotaryEmbedding { frequencies, pairs, head_dim: dim }, tokens);
        let geometry = Geometry { rope: Some(&rope), ..Geometry::rows(tokens, dim) };
        // Of the slowest quarter of the frequencies, and of the fastest half.
        let errors = |name: &str| {
            let (decoded, _) = round_trip(name, &values, &geometry);
            let (mut slow, mut fast) = (0.0, 0.0);
            for (index, (x, y)) in values.iter().zip(&decoded).enumerate().skip(64 * dim) {
                let rank = match pairs {
                    RotaryPairs::Halves => index % dim % half,
                    RotaryPairs::Neighbours => index % dim / 2,
                };
                let error = f64::from(x - y).powi(2);
                slow += if rank * 4 >= 3 * half { error } else { 0.0 };
                fast += if rank * 2 < half { error } else { 0.0 };
            }
            (slow, fast)
        };
        for unshaped in ["tc19", "tc19-prerope", "te26", "te20-prerope"] {
            let shaped = &format!("{unshaped}-shape");
            let unshaped_name = unshaped;
            let (unshaped, shaped) = (errors(unshaped), errors(shaped));
            let gain = 10.0 * (unshaped.0 / shaped.0).log10();
            // The order of a trellis is one for all: its groups of 64 neighbours have other frequencies too.
            let is_mixed = pairs == RotaryPairs::Neighbours && unshaped_name.starts_with("te");
            let least = if is_mixed { 0.9 } else { 1.5 };
            assert!(gain > least, "{dim}, {pairs:?}, {unshaped_name}: {gain} dB");
            // Neighbours of 128 channels are two blocks, the faster of which has equal weights.
            let has_even_block = pairs == RotaryPairs::Neighbours && dim == 128;
            assert!(shaped.1 > unshaped.1 || has_even_block, "{dim}, {pairs:?}");
        }
    }
}
