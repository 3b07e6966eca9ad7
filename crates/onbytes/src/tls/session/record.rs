//! Where records begin and end on the wire (RFC 8446, section 5.1).

/// The length of a record's header: its type, its version, and the length of its body.
const HEADER: usize = 5;

/// The most that rustls looks at in one record: 2^14 bytes, and what an older suite may add.
const MOST_BODY: usize = (1 << 14) + 2047;

/// A record on the wire.
pub(super) struct Record {
    /// Where it ends, or what there is of it.
    pub(super) end: usize,
    /// Whether all of it is there.
    pub(super) is_whole: bool,
}

impl Record {
    /// The record that begins at `start`.
    pub(super) fn at(wire: &[u8], start: usize) -> Self {
        let end = match wire.get(start..start + HEADER) {
            Some(&[_, _, _, high, low]) => {
                start + HEADER + usize::from(u16::from_be_bytes([high, low]))
            }
            _ => usize::MAX,
        };
        Self { end: end.min(wire.len()), is_whole: end <= wire.len() }
    }
}

/// Writes the beginning of an unfinished record over another, so that whoever looks at it finds
/// nothing to do yet. Returns how much of it is to be looked at; `None` where nothing that long can be
/// unfinished.
pub(super) fn make_unfinished(record: &mut [u8]) -> Option<usize> {
    let Some((header, body)) = record.split_first_chunk_mut::<HEADER>() else {
        // A header that is not whole is unfinished as it is.
        return Some(0);
    };
    // One that is too long was refused for what its header says: it need not be looked at whole.
    let len = if body.len() > MOST_BODY { 0 } else { body.len() };
    let claimed =
        u16::try_from(len + 1).ok().filter(|claimed| usize::from(*claimed) <= MOST_BODY)?;
    let [high, low] = claimed.to_be_bytes();
    *header = [23, 3, 3, high, low];
    Some(HEADER + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        [&[23, 3, 3, high, low], &vec![7; len][..]].concat()
    }

    #[test]
    fn records_end_where_their_headers_say_or_where_the_wire_does() {
        let wire = [record(3), record(0)].concat();
        let at = |wire: &[u8], start| {
            let Record { end, is_whole } = Record::at(wire, start);
            (end, is_whole)
        };
        assert_eq!(at(&wire, 0), (8, true));
        assert_eq!(at(&wire, 8), (13, true));
        assert_eq!(at(&wire, 13), (13, false));
        for cut in 0..8 {
            assert_eq!(at(&wire[..cut], 0), (cut, false));
        }
    }

    #[test]
    fn whatever_is_made_unfinished_lacks_one_byte() {
        for len in [0, 1, 18_429, 18_430] {
            let mut wire = record(len);
            let seen = make_unfinished(&mut wire).unwrap();
            assert_eq!(seen, wire.len());
            let claimed = u16::from_be_bytes([wire[3], wire[4]]);
            assert_eq!(usize::from(claimed), len + 1);
            assert!(!Record::at(&wire, 0).is_whole);
        }
        assert_eq!(make_unfinished(&mut record(18_431)), None);
        // Too long to have been looked at: a header alone says as much.
        let mut wire = record(18_432);
        assert_eq!(make_unfinished(&mut wire), Some(HEADER));
        assert_eq!(make_unfinished(&mut [23, 3, 3, 0]), Some(0));
    }
}
