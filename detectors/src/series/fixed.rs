//! Arrays longer than serde's own 32, kept as sequences: a judge holds its whole memory in itself and asks for no other.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeTuple, Serializer};

pub(super) fn serialize<S: Serializer, T: Serialize, const N: usize>(array: &[T; N], serializer: S) -> Result<S::Ok, S::Error> {
    let mut tuple = serializer.serialize_tuple(N)?;
    array.iter().try_for_each(|item| tuple.serialize_element(item))?;
    tuple.end()
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de> + Copy + Default, const N: usize>(
    deserializer: D,
) -> Result<[T; N], D::Error> {
    struct Items<T, const N: usize>([T; N]);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
        type Value = [T; N];

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "{N} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<[T; N], A::Error> {
            for (i, slot) in self.0.iter_mut().enumerate() {
                *slot = items.next_element()?.ok_or_else(|| Error::invalid_length(i, &"a full array"))?;
            }
            Ok(self.0)
        }
    }

    deserializer.deserialize_tuple(N, Items([T::default(); N]))
}
