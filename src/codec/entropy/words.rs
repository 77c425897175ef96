//! Codes of 19 levels, four a word of 17 bits, as symbols: `two_centre/words.rs` says how they lie in bytes.

use super::CUT;

/// Levels; of any word the last code is one more at most.
pub const LEVELS: u32 = 19;
/// Bits of a code.
pub const WIDTH: u8 = 5;
/// Bits of a word.
const WORD: u32 = 17;
/// Words of a block, at most.
const MOST: usize = MOST_CHANNELS / 4;
/// Channels of a block, at most.
const MOST_CHANNELS: usize = 128;

/// Whether a block has so many channels.
pub fn is_possible(channels: usize) -> bool {
    (4..=MOST_CHANNELS).contains(&channels) && channels.is_multiple_of(4)
}

/// Bytes of a block of so many channels: the low 16 bits of its words, and the highest ones.
pub fn block_bytes(channels: usize) -> usize {
    channels / 2 + channels.div_ceil(32)
}

/// Codes of so many bytes; `None`: they are not whole blocks.
pub fn count(bytes: usize, channels: usize) -> Option<usize> {
    let block = block_bytes(channels);
    bytes.is_multiple_of(block).then(|| bytes / block * channels)
}

/// The codes, by their channels; `None` where bits behind the words of a block are not 0.
pub fn split(plain: &[u8], channels: usize) -> Option<Vec<u8>> {
    let mut codes = vec![0; count(plain.len(), channels)?];
    let blocks = plain.chunks_exact(block_bytes(channels));
    for (block, codes) in blocks.zip(codes.chunks_exact_mut(channels)) {
        let (low, highest) = block.split_at(channels / 2);
        let mut tops = [0; 4];
        tops[..highest.len()].copy_from_slice(highest);
        let mut tops = u32::from_le_bytes(tops);
        let mut words = [0u32; MOST];
        let words = &mut words[..channels / 4];
        for (word, low) in words.iter_mut().zip(low.as_chunks().0) {
            *word = u32::from(u16::from_le_bytes(*low)) | (tops & 1) << (WORD - 1);
            tops >>= 1;
        }
        if tops != 0 {
            return None;
        }
        for codes in codes.chunks_exact_mut(channels / 4) {
            for (code, word) in codes.iter_mut().zip(words.iter_mut()) {
                *code = (*word % LEVELS) as u8;
                *word /= LEVELS;
            }
        }
        // A word beyond the largest, which no codec writes: one code more.
        for (code, word) in codes[3 * words.len()..].iter_mut().zip(words) {
            *code += (LEVELS * *word) as u8;
        }
    }
    Some(codes)
}

/// The way back, of as many codes as `plain` has. Errors: codes that are no word's.
pub fn join(codes: &[u8], channels: usize, plain: &mut [u8]) -> Result<(), &'static str> {
    if count(plain.len(), channels) != Some(codes.len()) {
        return Err(CUT);
    }
    // All of what is too large, so that nothing branches within.
    let mut beyond = false;
    let blocks = plain.chunks_exact_mut(block_bytes(channels));
    for (block, codes) in blocks.zip(codes.chunks_exact(channels)) {
        let mut words = [0u32; MOST];
        let words = &mut words[..channels / 4];
        for (place, codes) in codes.chunks_exact(channels / 4).enumerate().rev() {
            for (word, code) in words.iter_mut().zip(codes) {
                beyond |= place < 3 && u32::from(*code) >= LEVELS;
                *word = LEVELS * *word + u32::from(*code);
            }
        }
        let (low, highest) = block.split_at_mut(channels / 2);
        let mut tops = 0u32;
        for (index, (word, low)) in words.iter().zip(low.as_chunks_mut().0).enumerate() {
            beyond |= *word >> WORD != 0;
            *low = (*word as u16).to_le_bytes();
            tops |= (*word >> (WORD - 1) & 1) << index;
        }
        highest.copy_from_slice(&tops.to_le_bytes()[..highest.len()]);
    }
    if beyond { Err("codes that are no word's") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word there is, and bits behind the last one.
    #[test]
    fn all_words() {
        for channels in [4, 8, 20, 64, 100, 124, 128] {
            let words: Vec<u32> = (0..1 << WORD).collect();
            let mut plain = Vec::new();
            for words in words.chunks(channels / 4).filter(|words| words.len() == channels / 4) {
                let mut block = vec![0; block_bytes(channels)];
                for (index, word) in words.iter().enumerate() {
                    block[2 * index..2 * index + 2].copy_from_slice(&(*word as u16).to_le_bytes());
                    block[channels / 2 + index / 8] |= ((word >> 16) as u8) << (index % 8);
                }
                let codes = split(&block, channels).unwrap();
                for (index, word) in words.iter().enumerate() {
                    let code = |place: usize| u32::from(codes[place * channels / 4 + index]);
                    let found = code(0) + 19 * (code(1) + 19 * (code(2) + 19 * code(3)));
                    assert_eq!(found, *word, "{channels}");
                    assert!((0..3).all(|place| code(place) < 19) && code(3) < 20);
                }
                plain.extend(block);
            }
            let codes = split(&plain, channels).unwrap();
            let mut back = vec![0xaa; plain.len()];
            assert_eq!(join(&codes, channels, &mut back), Ok(()));
            assert!(back == plain, "{channels}");
            assert_eq!(split(&plain[1..], channels), None);
            if channels % 32 != 0 {
                *plain.last_mut().unwrap() |= 0x80;
                assert_eq!(split(&plain, channels), None);
            }
        }
    }

    #[test]
    fn codes_of_no_word() {
        let mut plain = vec![0; block_bytes(8)];
        let mut joined = |codes: [u8; 8]| join(&codes, 8, &mut plain).is_ok();
        assert!(joined([18, 18, 18, 18, 18, 18, 18, 18]) && joined([0, 0, 0, 0, 0, 0, 19, 0]));
        for place in 0..6 {
            let mut codes = [0; 8];
            codes[place] = 19;
            assert!(!joined(codes), "{place}");
        }
        // 19 · 6859 + 750 is the last word of 17 bits.
        assert!(joined([9, 0, 1, 0, 2, 0, 19, 0]) && !joined([10, 0, 1, 0, 2, 0, 19, 0]));
        assert!(!joined([0, 0, 0, 0, 0, 0, 0, 20]) && !joined([0, 0, 0, 0, 0, 0, 31, 0]));
        assert_eq!(join(&[0; 8], 8, &mut [0; 6]), Err(CUT));
    }
}
