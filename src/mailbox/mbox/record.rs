//! Records of fixed size in our own files: little-endian numbers and a sum over all of them.
//!
//! They are read like anything from a stranger: a record that does not prove itself is none.

use xxhash_rust::xxh3::xxh3_64;

/// The lower half of xxh3-64. It is made without asking the processor what it can, which would take
/// a delivery longer than all the rest.
pub fn sum(bytes: &[u8]) -> u32 {
    let [a, b, c, d, ..] = xxh3_64(bytes).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Writes a record: fields in their order, zeroes, and the sum in its last four bytes.
pub fn write<const N: usize>(magic: [u8; 8], fields: &[u64]) -> [u8; N] {
    let mut record = [0; N];
    let mut bytes = magic.into_iter().chain(fields.iter().flat_map(|field| field.to_le_bytes()));
    let (body, end) = record.split_at_mut(N.saturating_sub(4));
    for (place, byte) in body.iter_mut().zip(&mut bytes) {
        *place = byte;
    }
    debug_assert!(bytes.next().is_none(), "the record is too small");
    for (place, byte) in end.iter_mut().zip(sum(body).to_le_bytes()) {
        *place = byte;
    }
    record
}

/// Reads so many fields of a record; `None` where magic or sum are wrong.
pub fn read<const FIELDS: usize>(magic: [u8; 8], record: &[u8]) -> Option<[u64; FIELDS]> {
    let (body, end) = record.split_at_checked(record.len().checked_sub(4)?)?;
    if end != sum(body).to_le_bytes() {
        return None;
    }
    let mut bytes = body.strip_prefix(&magic)?.chunks_exact(8);
    let mut fields = [0; FIELDS];
    for field in &mut fields {
        *field = u64::from_le_bytes(bytes.next()?.try_into().ok()?);
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn a_record_with_any_bit_changed_is_no_record() {
        let record = write::<64>(*b"hikyaku1", &[1, u64::MAX, 3]);
        assert_eq!(read::<3>(*b"hikyaku1", &record), Some([1, u64::MAX, 3]));
        assert_eq!(read::<3>(*b"hikyaku2", &record), None);
        for bit in 0..64 * 8 {
            let mut changed = record;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read::<3>(*b"hikyaku1", &changed), None);
        }
        assert_eq!(read::<3>(*b"hikyaku1", &record[..20]), None);
        assert_eq!(read::<3>(*b"hikyaku1", &[]), None);
    }
}
