//! Codes of 2 to 8 bits in bytes: one after the other, the lowest bit first. Of 4 bits these are
//! two a byte, the even index in the low nibble. Bits after the last code are 0.

/// Bytes of so many codes.
pub fn packed_len(codes: usize, bits: u8) -> usize {
    (codes * usize::from(bits)).div_ceil(8)
}

/// `out` holds [`packed_len`] bytes.
#[inline(always)]
pub fn pack(codes: &[u8], bits: u8, out: &mut [u8]) {
    match bits {
        8 => out.copy_from_slice(codes),
        4 => {
            let (pairs, last) = codes.as_chunks::<2>();
            for (byte, [low, high]) in out.iter_mut().zip(pairs) {
                *byte = low | high << 4;
            }
            if let ([low], Some(byte)) = (last, out.last_mut()) {
                *byte = *low;
            }
        }
        // Eight codes fill whole bytes.
        _ => {
            for (out, codes) in out.chunks_mut(bits.into()).zip(codes.chunks(8)) {
                let word =
                    codes.iter().rev().fold(0u64, |word, code| word << bits | u64::from(*code));
                out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
            }
        }
    }
}

/// `bytes` holds [`packed_len`] bytes of `out.len()` codes.
#[inline(always)]
pub fn unpack(bytes: &[u8], bits: u8, out: &mut [u8]) {
    match bits {
        8 => out.copy_from_slice(bytes),
        4 => {
            let (pairs, last) = out.as_chunks_mut::<2>();
            for ([low, high], byte) in pairs.iter_mut().zip(bytes) {
                (*low, *high) = (byte & 0xf, byte >> 4);
            }
            if let ([low], Some(byte)) = (last, bytes.last()) {
                *low = byte & 0xf;
            }
        }
        _ => {
            let mask = (1u64 << bits) - 1;
            for (bytes, codes) in bytes.chunks(bits.into()).zip(out.chunks_mut(8)) {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                let mut word = u64::from_le_bytes(word);
                for code in codes {
                    *code = (word & mask) as u8;
                    word >>= bits;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_codes_of_any_width_comes_back() {
        for bits in 2..=8 {
            for count in 0..70 {
                let mask = 0xff >> (8 - bits);
                let codes: Vec<u8> = (0..count).map(|i| (i * 37 + 11) as u8 & mask).collect();
                let mut bytes = vec![0xff; packed_len(count, bits)];
                pack(&codes, bits, &mut bytes);
                let mut back = vec![0xff; count];
                unpack(&bytes, bits, &mut back);
                assert_eq!(back, codes, "{bits} bits");
                // The definition: bit b of code i is bit i·bits + b of the bytes.
                for (index, code) in codes.iter().enumerate() {
                    for bit in 0..usize::from(bits) {
                        let at = index * usize::from(bits) + bit;
                        assert_eq!(bytes[at / 8] >> (at % 8) & 1, code >> bit & 1);
                    }
                }
            }
        }
    }
}
