//! SipHash-2-4: a keyed hash of a user's name that nobody without the key can turn back by trying names.
//!
//! Written out because the one in the standard library promises no particular algorithm and the counts of affected users must
//! survive an upgrade. An unkeyed or merely seeded hash would be faster and would give the names away to a dictionary.
//! After Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with the test vectors of that paper.

/// Hashes `data` under `key`. The result is the same on every machine and in every version.
pub fn hash(key: &[u8; 16], data: &[u8]) -> u64 {
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut v = [k0 ^ 0x736f_6d65_7073_6575, k1 ^ 0x646f_7261_6e64_6f6d, k0 ^ 0x6c79_6765_6e65_7261, k1 ^ 0x7465_6462_7974_6573];
    let chunks = data.chunks_exact(8);
    // The last word is what is left over, with the length in its highest byte.
    let last = word(chunks.remainder()) | (data.len() as u64) << 56;
    for m in chunks.map(word).chain([last]) {
        v[3] ^= m;
        round(&mut v);
        round(&mut v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// Up to eight bytes, little endian.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let data: Vec<u8> = (0..15).collect();
        assert_eq!(hash(&key, &data), 0xa129_ca61_49be_45e5, "appendix A of the paper");
        assert_eq!(hash(&key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(hash(&key, &data[..8]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    #[allow(deprecated)]
    fn it_agrees_with_the_standard_library_at_every_length() {
        use std::hash::{Hasher, SipHasher};
        let key: [u8; 16] = std::array::from_fn(|i| (i * 37) as u8);
        let data: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(91)).collect();
        for length in 0..data.len() {
            let mut theirs = SipHasher::new_with_keys(word(&key[..8]), word(&key[8..]));
            theirs.write(&data[..length]);
            assert_eq!(hash(&key, &data[..length]), theirs.finish(), "{length} bytes");
        }
    }
}
