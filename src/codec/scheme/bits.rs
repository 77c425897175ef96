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
        2 => pack_eights::<2>(codes, out),
        3 => pack_eights::<3>(codes, out),
        5 => pack_eights::<5>(codes, out),
        6 => pack_eights::<6>(codes, out),
        _ => pack_eights::<7>(codes, out),
    }
}

/// Eight codes fill whole bytes.
#[inline(always)]
fn pack_eights<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    let (eights, rest) = codes.as_chunks::<8>();
    let (bytes, last) = out.split_at_mut(eights.len() * BITS);
    for (out, codes) in bytes.as_chunks_mut::<BITS>().0.iter_mut().zip(eights) {
        let mut word = 0u64;
        for code in codes.iter().rev() {
            word = (word << BITS) | u64::from(*code);
        }
        out.copy_from_slice(&word.to_le_bytes()[..BITS]);
    }
    let word = rest.iter().rev().fold(0u64, |word, code| (word << BITS) | u64::from(*code));
    last.copy_from_slice(&word.to_le_bytes()[..last.len()]);
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
        2 => unpack_eights::<2>(bytes, out),
        3 => unpack_eights::<3>(bytes, out),
        5 => unpack_eights::<5>(bytes, out),
        6 => unpack_eights::<6>(bytes, out),
        _ => unpack_eights::<7>(bytes, out),
    }
}

#[inline(always)]
fn unpack_eights<const BITS: usize>(bytes: &[u8], out: &mut [u8]) {
    let (eights, rest) = out.as_chunks_mut::<8>();
    let (bytes, last) = bytes.split_at(eights.len() * BITS);
    for (codes, bytes) in eights.iter_mut().zip(bytes.as_chunks::<BITS>().0) {
        unpack_word(bytes, BITS, codes);
    }
    unpack_word(last, BITS, rest);
}

/// Up to eight codes.
#[inline(always)]
fn unpack_word(bytes: &[u8], bits: usize, codes: &mut [u8]) {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let word = u64::from_le_bytes(word);
    for (index, code) in codes.iter_mut().enumerate() {
        *code = (word >> (bits * index)) as u8 & ((1u16 << bits) - 1) as u8;
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
