use super::*;

/// Random bytes: `spread` of 256 are all alike likely, fewer are peaked.
struct Source(u64);

impl Source {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Codes of `width` bits whose spread depends on their place in a period of `period`.
    fn codes(&mut self, count: usize, width: u8, period: usize) -> Vec<u8> {
        let most = (1u32 << width) - 1;
        let code = |i: usize| {
            let near = (0..3).map(|_| self.next() % (most / 3 + 1)).sum::<u32>();
            if i.is_multiple_of(period) { near / 4 } else { near }.min(most) as u8
        };
        (0..count).map(code).collect()
    }
}

fn packed(codes: &[u8], width: u8) -> Vec<u8> {
    let mut bytes = vec![0; bits::packed_len(codes.len(), width)];
    bits::pack(codes, width, &mut bytes);
    bytes
}

fn symbols(bits: u8, elements: usize) -> Symbols {
    Symbols { form: SymbolForm::Bits(bits), element: 1, elements }
}

fn back(coded: &[u8], len: usize) -> Result<Vec<u8>, &'static str> {
    let mut plain = vec![0xaa; len];
    BlockDecoder::default().decode(coded, &mut plain)?;
    Ok(plain)
}

#[test]
fn any_bytes_come_back() {
    let mut source = Source(1);
    for width in 2..=8 {
        for period in [1, 2, 3, 8, 17, 64, 100, 5000] {
            for len in [0, 1, 7, 100, 1000, 4099, 20_000] {
                let count = 8 * len / usize::from(width);
                let mut plain = packed(&source.codes(count, width, period), width);
                // What is left behind the last whole code may be anything.
                plain.resize(len, 3);
                if let Some(coded) = encode_block(&plain, symbols(width, period)) {
                    assert!(coded.len() < len);
                    assert!(back(&coded, len).as_ref() == Ok(&plain), "{width} {period} {len}");
                } else {
                    // Enough bytes pay for their tables, but for symbols of few bits.
                    assert!(len < 5000 || width < 4, "{width} bits, {period}, {len} bytes");
                }
            }
        }
    }
    let noise: Vec<u8> = (0..10_000).map(|_| source.next() as u8).collect();
    assert_eq!(encode_block(&noise, symbols(8, 1)), None);
    assert_eq!(encode_block(&noise, symbols(4, 64)), None);
}

/// Words of 19 levels, whatever bytes they are, and rows that are there twice.
#[test]
fn words_and_rows_come_back() {
    let mut source = Source(5);
    for (channels, elements) in [(64, 64), (64, 128), (20, 20), (124, 124), (8, 2000), (100, 200)] {
        let row = words::block_bytes(channels) * elements / channels;
        let symbols = Symbols { form: SymbolForm::Words(channels as u8), element: 1, elements };
        assert_eq!(symbols.row(), row);
        let codes: Vec<u8> = (0..200 * elements)
            .map(|_| ((source.next() % 5 + source.next() % 8 + source.next() % 8) % 19) as u8)
            .collect();
        let mut plain = vec![0; 200 * row];
        words::join(&codes, channels, &mut plain).unwrap();
        let coded = encode_block(&plain, symbols).unwrap();
        assert!(is_of_version_10(&coded) && coded[0] == 19);
        assert!(back(&coded, plain.len()).as_ref() == Ok(&plain), "{channels} of {elements}");
        // Not as long as whole words, or with bits where there are none.
        for mut other in [plain[..plain.len() - 1].to_vec(), plain.clone()] {
            other[row - 1] |= 0x80;
            if let Some(coded) = encode_block(&other, symbols) {
                assert!(back(&coded, other.len()).as_ref() == Ok(&other), "{channels}, bytes");
            }
        }
        let twice: Vec<u8> =
            (0..300).flat_map(|i| &plain[i * i % 17 * row..][..row]).copied().collect();
        let again = encode_block(&twice, symbols).unwrap();
        assert_eq!(again[0], 19 | REPEATS);
        assert!(again.len() < twice.len() / 5 && back(&again, twice.len()) == Ok(twice));
    }
    for (width, elements) in [(4, 64), (3, 40), (8, 33), (5, 16), (7, 64)] {
        let symbols = symbols(width, elements);
        let codes = packed(&source.codes(1000 * elements, width, elements), width);
        let row = symbols.row();
        let twice: Vec<u8> =
            (0..1000).flat_map(|i| &codes[i % 3 * i % 400 * row..][..row]).copied().collect();
        let coded = encode_block(&twice, symbols).unwrap();
        assert_eq!(coded[0], width | REPEATS);
        assert!(back(&coded, twice.len()) == Ok(twice), "{width} bits, {elements}");
        for other in [&codes[..], &codes[1..]] {
            let coded = encode_block(other, symbols).unwrap();
            assert!(!is_of_version_10(&coded) && back(&coded, other.len()).as_deref() == Ok(other));
        }
    }
}

/// Blocks of words, and with rows that repeat, that no encoder writes.
#[test]
fn hostile_words_and_rows() {
    let mut source = Source(6);
    // Channels that differ: with but one class any period would do.
    let codes: Vec<u8> =
        (0..20 * 200).map(|i| (source.next() % if i % 20 < 10 { 19 } else { 5 }) as u8).collect();
    let mut plain = vec![0; 200 * words::block_bytes(20)];
    words::join(&codes, 20, &mut plain).unwrap();
    let symbols = Symbols { form: SymbolForm::Words(20), element: 1, elements: 20 };
    let twice: Vec<u8> = plain.iter().chain(&plain).copied().collect();
    for (plain, form) in [(plain, 19), (twice, 19 | REPEATS)] {
        let coded = encode_block(&plain, symbols).unwrap();
        assert_eq!(coded[0], form);
        for len in 0..coded.len() {
            assert!(back(&coded[..len], plain.len()).is_err(), "cut to {len}");
        }
        for len in [0, 1, plain.len() - 11, plain.len() - 1, plain.len() + 1, 2 * plain.len()] {
            assert!(back(&coded, len).is_err(), "{len} of {} bytes", plain.len());
        }
        let mut decoder = BlockDecoder::default();
        let mut out = vec![0; plain.len()];
        for round in 0..20_000 {
            let mut bytes = coded.clone();
            for _ in 0..1 + round % 3 {
                let at = source.next() as usize % if round % 2 == 0 { 80 } else { bytes.len() };
                bytes[at] = source.next() as u8;
            }
            let other = decoder.decode(&bytes, &mut out).is_err() || out != plain;
            assert!(other || bytes == coded, "round {round}");
        }
    }
}

/// The size is that of the entropy, and tables.
#[test]
fn size_is_within_a_percent_of_the_entropy() {
    let mut source = Source(2);
    for (width, period) in [(4, 1), (4, 64), (3, 64), (8, 1)] {
        let codes = source.codes(1 << 17, width, period);
        let mut counts = vec![[0f64; 256]; 2];
        for (index, code) in codes.iter().enumerate() {
            counts[usize::from(index.is_multiple_of(period))][usize::from(*code)] += 1.0;
        }
        let entropy: f64 = (counts.iter())
            .map(|counts| {
                let all: f64 = counts.iter().sum();
                let bits = |n: &f64| if *n > 0.0 { n * (all / n).log2() } else { 0.0 };
                counts.iter().map(bits).sum::<f64>()
            })
            .sum();
        let coded = encode_block(&packed(&codes, width), symbols(width, period)).unwrap();
        let ratio = 8.0 * coded.len() as f64 / entropy;
        assert!((0.999..1.01).contains(&ratio), "{width} bits, {period}: {ratio}");
    }
}

#[test]
fn one_symbol_alone_takes_no_bits() {
    for width in 2..=8 {
        let coded = encode_block(&vec![0; 100_000], symbols(width, 64)).unwrap();
        assert!(coded.len() <= 42, "{}", coded.len());
        assert_eq!(back(&coded, 100_000).unwrap(), vec![0; 100_000]);
        // More of it, or less, is the same stream: the length is the container's to check.
        assert_eq!(back(&coded, 9).unwrap(), [0; 9]);
    }
}

/// Tables and states that no encoder writes.
#[test]
fn hostile_blocks() {
    let plain = packed(&Source(3).codes(4000, 4, 8), 4);
    let coded = encode_block(&plain, symbols(4, 8)).unwrap();
    let refused = |bytes: &[u8], words: &str| {
        let error = back(bytes, plain.len()).unwrap_err();
        assert!(error.contains(words), "{error}, not {words}");
    };
    for len in 0..coded.len() {
        assert!(back(&coded[..len], plain.len()).is_err(), "cut to {len}");
    }
    refused(&[&coded[..], &[0]].concat(), "half a word");
    refused(&[&coded[..], &[0, 0]].concat(), "do not end where they began");
    assert!(back(&coded, plain.len() - 1).is_err() && back(&coded, plain.len() + 1).is_err());
    for width in [0, 1, 9, 255] {
        refused(&[&[width], &coded[1..]].concat(), "symbols of another size");
    }
    for period in [0u16, 4097, 0xffff] {
        refused(&[&coded[..1], &period.to_le_bytes(), &coded[3..]].concat(), "a period");
    }
    let made = |fields: &[(u32, u32)], rest: &[u8]| {
        let mut writer = BitWriter::default();
        fields.iter().for_each(|(value, bits)| writer.push(*value, *bits));
        [&[4, 1, 0], &writer.finish()[..], rest].concat()
    };
    let one_table = (0, 6);
    // Symbols 0 and 1, of 13 bits and none: 4096 and 0.
    let good = [one_table, (0, 4), (1, 4), (13, 4), (0, 12), (0, 4)];
    let states = [0, 0, 1, 0].repeat(8);
    assert_eq!(back(&made(&good, &states), 5).unwrap(), [0; 5]);
    refused(&made(&[one_table, (1, 4), (0, 4)], &states), "no symbols");
    let sum = |last: u32| [one_table, (0, 4), (1, 4), (12, 4), (0, 11), (12, 4), (last, 11)];
    assert!(back(&made(&sum(0), &states), 0).is_ok());
    refused(&made(&sum(1), &states), "another sum");
    refused(&made(&[one_table, (0, 4), (0, 4), (1, 4)], &states), "another sum");
    refused(&made(&[one_table, (0, 4), (0, 4), (0, 4)], &states), "another sum");
    for size in [14, 15] {
        refused(&made(&[one_table, (0, 4), (0, 4), (size, 4)], &states), "out of its limits");
    }
    // Three classes, and a place of a fourth.
    refused(&made(&[(2, 6), (3, 2)], &states), "without a table");
    // 30 bits of tables, and two that are left.
    let mut unclean = made(&[one_table, (0, 4), (0, 4), (13, 4), (0, 12)], &states);
    assert_eq!(back(&unclean, 5).unwrap(), [0; 5]);
    unclean[6] |= 0x80;
    refused(&unclean, "not 0");
    let low = [0, 0, 0, 0, 0, 0, 1, 0].repeat(4);
    refused(&made(&good, &low), "a state out of its limits");
    let other = [1, 0, 1, 0].repeat(8);
    assert!(back(&made(&good, &other), 5).is_err());
}

/// Any damage is an error or other bytes, never a panic.
#[test]
fn random_damage() {
    let mut source = Source(4);
    let plain = packed(&source.codes(3000, 5, 16), 5);
    let coded = encode_block(&plain, symbols(5, 16)).unwrap();
    let mut decoder = BlockDecoder::default();
    let mut out = vec![0; plain.len()];
    for round in 0..20_000 {
        let mut bytes = coded.clone();
        for _ in 0..1 + round % 3 {
            let at = source.next() as usize % if round % 2 == 0 { 60 } else { bytes.len() };
            bytes[at] = source.next() as u8;
        }
        let other = decoder.decode(&bytes, &mut out).is_err() || out != plain;
        assert!(other || bytes == coded, "round {round}");
    }
}
