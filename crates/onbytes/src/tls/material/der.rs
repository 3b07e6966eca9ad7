//! DER by checked slices: no length is believed before it is compared with what is left, nothing is
//! copied and nothing recurses, so hostile input costs no more than its own size.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The tag of a constructed, context-specific element.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// What is left to read of an encoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

/// One element of an encoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// With its tag and length.
    pub(super) whole: &'a [u8],
}

impl<'a> Der<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// What a sequence that fills `data` from start to end contains.
    pub(super) fn only_sequence(data: &'a [u8]) -> Option<Self> {
        let mut all = Self(data);
        let content = all.sequence()?;
        all.is_empty().then_some(content)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element, of any kind. Indefinite lengths (BER) and tags of several bytes are none.
    pub(super) fn element(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (length, header) = length(rest)?;
        let end = header.checked_add(length)?.checked_add(1)?;
        if tag & 0x1f == 0x1f || end > self.0.len() {
            return None;
        }
        let (whole, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(Element { tag, content: &whole[1 + header..], whole })
    }

    /// The content of the next element, if it has this tag; otherwise nothing is read.
    pub(super) fn bytes(&mut self, tag: u8) -> Option<&'a [u8]> {
        let before = *self;
        match self.element() {
            Some(element) if element.tag == tag => Some(element.content),
            _ => {
                *self = before;
                None
            }
        }
    }

    /// The same, to be read on.
    pub(super) fn inner(&mut self, tag: u8) -> Option<Self> {
        self.bytes(tag).map(Self)
    }

    pub(super) fn sequence(&mut self) -> Option<Self> {
        self.inner(SEQUENCE)
    }

    pub(super) fn oid(&mut self) -> Option<&'a [u8]> {
        self.bytes(OID)
    }

    pub(super) fn octets(&mut self) -> Option<&'a [u8]> {
        self.bytes(OCTET_STRING)
    }

    /// A bit string of whole bytes.
    pub(super) fn bits(&mut self) -> Option<&'a [u8]> {
        match self.bytes(BIT_STRING)?.split_first()? {
            (0, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A whole number that is not negative and not beyond `u64`.
    pub(super) fn number(&mut self) -> Option<u64> {
        let bytes = self.bytes(INTEGER)?;
        if bytes.first()? & 0x80 != 0 {
            return None;
        }
        bytes.iter().try_fold(0_u64, |number, &byte| {
            number.checked_mul(256).map(|number| number | u64::from(byte))
        })
    }
}

/// A length, and how many bytes it is written in.
fn length(data: &[u8]) -> Option<(usize, usize)> {
    let (&first, rest) = data.split_first()?;
    match first {
        0..=0x7f => Some((usize::from(first), 1)),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let bytes = rest.get(..count)?;
            let length = bytes.iter().fold(0_u64, |length, &byte| length << 8 | u64::from(byte));
            Some((usize::try_from(length).ok()?, 1 + count))
        }
        _ => None,
    }
}

/// An object identifier in dots and digits.
pub(super) fn dotted(oid: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in oid {
        // What is beyond 64 bits is in no registry; its digits do not matter, only that they end.
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            arcs.push(std::mem::take(&mut arc));
        }
    }
    if let Some(&first) = arcs.first() {
        let root = (first / 40).min(2);
        arcs.splice(..1, [root, first - 40 * root]);
    }
    let arcs: Vec<String> = arcs.iter().take(16).map(u64::to_string).collect();
    arcs.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_what_is_left_is_no_element() {
        for data in [
            &[0x30][..],
            &[0x30, 0x01],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x3f, 0x01, 0x00],
        ] {
            assert!(Der::new(data).element().is_none(), "{data:?}");
        }
    }

    #[test]
    fn what_has_another_tag_stays() {
        let mut der = Der::new(&[0x02, 0x02, 0x01, 0x00]);
        assert!(der.octets().is_none());
        assert_eq!(der.number(), Some(256));
        assert!(der.is_empty());
    }

    #[test]
    fn identifiers_are_shown_in_dots() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01]), "1.2.840.10040.4.1");
        assert_eq!(dotted(&[0x2b, 0x65, 0x71]), "1.3.101.113");
        assert_eq!(dotted(&[0x88, 0x37, 0x01]), "2.999.1");
        assert_eq!(dotted(&[]), "");
    }
}
