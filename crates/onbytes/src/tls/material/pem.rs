//! PEM: blocks of base64 between lines of text that do not matter.

use std::borrow::Cow;

/// One block.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    /// Whether its headers say that OpenSSL's traditional encryption is under the base64.
    pub(super) encrypted: bool,
    base64: String,
}

/// Is there a block in it, whatever stands around?
pub(super) fn is_pem(data: &[u8]) -> bool {
    data.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

/// The text of a file. Attributes before a block may be in any encoding; the blocks are ASCII.
pub(super) fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

const BEGIN: &str = "-----BEGIN ";

/// All blocks of a text, or what is wrong with it.
pub(super) fn blocks(text: &str) -> Result<Vec<Block<'_>>, String> {
    let mut lines = text.split(['\n', '\r']);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(label) = label(line, BEGIN) {
            blocks.push(block(label, &mut lines)?);
        }
    }
    Ok(blocks)
}

/// What follows the first line of a block, up to its last.
fn block<'a>(
    name: &'a str,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Result<Block<'a>, String> {
    let mut block = Block { label: name, encrypted: false, base64: String::new() };
    for line in lines {
        if let Some(end) = label(line, "-----END ") {
            return if end == name { Ok(block) } else { Err(damaged(name)) };
        }
        if line.starts_with("-----") {
            return Err(damaged(name));
        }
        match line.split_once(':') {
            Some((header, value)) => {
                block.encrypted |= header.trim() == "Proc-Type" && value.contains("ENCRYPTED");
            }
            None => block.base64.extend(line.split_ascii_whitespace()),
        }
    }
    Err(format!("the end of its {} block is missing", shown(name)))
}

fn label<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    // Some editors begin a file with a byte order mark.
    let line = line.trim_start_matches('\u{feff}').trim();
    line.strip_prefix(start)?.strip_suffix("-----")
}

fn damaged(label: &str) -> String {
    format!("its {} block is damaged", shown(label))
}

fn shown(label: &str) -> String {
    crate::endpoint::shown(label)
}

impl Block<'_> {
    pub(super) fn is_certificate(&self) -> bool {
        matches!(self.label, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE")
    }

    pub(super) fn is_private_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    pub(super) fn is_crl(&self) -> bool {
        self.label == "X509 CRL"
    }

    /// What such a block holds, for a message.
    pub(super) fn content(&self) -> String {
        match self.label {
            _ if self.is_certificate() => "a certificate".to_owned(),
            _ if self.is_private_key() => "a private key".to_owned(),
            "X509 CRL" => "a list of revoked certificates".to_owned(),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => "a certificate request".to_owned(),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => "a public key".to_owned(),
            "PKCS7" | "CMS" => "a PKCS#7 container".to_owned(),
            other => format!("a {} block", shown(other)),
        }
    }

    /// The bytes under the base64.
    pub(super) fn der(&self) -> Result<Vec<u8>, String> {
        decoded(&self.base64).ok_or_else(|| damaged(self.label))
    }
}

fn decoded(base64: &str) -> Option<Vec<u8>> {
    let digits = base64.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        bits = bits << 6 | value(digit)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // Six bits left over are a digit too many, or a digit lost.
    (count < 6 && !bytes.is_empty()).then_some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Result<Vec<u8>, String> {
        let mut blocks = blocks(text)?;
        assert_eq!(blocks.len(), 1);
        blocks.remove(0).der()
    }

    #[test]
    fn text_around_blocks_and_odd_line_ends_do_not_matter() {
        for text in [
            "-----BEGIN X-----\nAQID\n-----END X-----\n",
            "\u{feff}-----BEGIN X-----\r\nAQID\r\n-----END X-----",
            "Bag Attributes\n  friendlyName: a\n-----BEGIN X-----\r AQ\rID \r-----END X-----\rmore",
            "-----BEGIN X-----\nDEK-Info: no\n\nAQID\n-----END X-----",
        ] {
            assert_eq!(only(text), Ok(vec![1, 2, 3]), "{text:?}");
        }
        assert_eq!(only("-----BEGIN X-----\nAQ==\n-----END X-----"), Ok(vec![1]));
        assert_eq!(only("-----BEGIN X-----\nAQI\n-----END X-----"), Ok(vec![1, 2]));
    }

    #[test]
    fn a_broken_block_is_told_by_its_label() {
        let damaged = Err("its X block is damaged".to_owned());
        for text in [
            "-----BEGIN X-----\nAQI*\n-----END X-----",
            "-----BEGIN X-----\nAQIDA\n-----END X-----",
            "-----BEGIN X-----\n-----END X-----",
            "-----BEGIN X-----\nAQID\n-----END Y-----",
            "-----BEGIN X-----\nAQID\n-----BEGIN X-----",
        ] {
            assert_eq!(only(text), damaged, "{text:?}");
        }
        let endless = "-----BEGIN X-----\nAQID\n";
        assert_eq!(only(endless), Err("the end of its X block is missing".to_owned()));
    }
}
