//! Summaries of fixed resolution that merge by adding.

pub mod log_linear;

/// Sorts entries by their keys, and adds up those that are alike: each key once, in order.
pub fn once_each<K: Ord + Copy, N: Copy>(entries: &mut Vec<(K, N)>, add: impl Fn(N, N) -> N) {
    entries.sort_unstable_by_key(|e| e.0);
    entries.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = add(kept.1, next.1);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_once_and_in_order() {
        let mut entries = vec![(3u16, 1u32), (1, 2), (3, 4), (2, u32::MAX), (2, 1)];
        once_each(&mut entries, u32::saturating_add);
        assert_eq!(entries, [(1, 2), (2, u32::MAX), (3, 5)]);
    }
}
