//! Framings by the names of the protocols that use them.

use super::{
    Blocks, Delimiter, Framing, LengthField, LengthPrefix, LineEnding, Lines, OctetCounting,
};

impl Framing {
    /// HL7's MLLP: 0x0B, the message, 0x1C 0x0D, up to 16 MiB.
    ///
    /// It is tolerant: a frame ends with 0x1C, and the 0x0D that should follow may be missing. A message
    /// that is not ended before the next one begins is malformed rather than a part of that.
    pub fn mllp() -> Self {
        let form = Blocks::new([0x0B], [0x1C]).tail([0x0D]).restart(true);
        Self::new(form).max_frame(16 * 1024 * 1024)
    }

    /// ISO 8583 in its most common form on the wire: the length in two bytes, the high one first, which
    /// counts the message alone.
    ///
    /// The other common forms have a short text each: `iso8583:inclusive` (the length counts itself),
    /// `iso8583:ascii` (four decimal digits), `iso8583:bcd` (two bytes of BCD), `iso8583:visa` (the length
    /// and two reserved bytes), `iso8583:u32` (four bytes).
    pub fn iso8583() -> Self {
        Self::length(LengthField::u16_be())
    }

    /// Modbus/TCP: frames with their MBAP header of 7 bytes, in which the length is filled in when sent;
    /// at most 260 bytes.
    ///
    /// Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3.
    pub fn modbus_tcp() -> Self {
        Self::new(LengthPrefix::new(LengthField::u16_be()).offset(4).strip(0)).max_frame(260)
    }

    /// Syslog over TCP (RFC 6587) and TLS (RFC 5425): octet counting, and lines where a frame does not
    /// begin with a digit; up to 64 KiB.
    pub fn syslog() -> Self {
        Self::new(OctetCounting::new().detect_lines(true)).max_frame(64 * 1024)
    }

    /// Frames between STX (0x02) and ETX (0x03), which hold neither of them.
    pub fn stx_etx() -> Self {
        Self::new(Blocks::new([0x02], [0x03]).restart(true))
    }

    /// GELF over TCP: a zero byte after each frame.
    pub fn gelf() -> Self {
        Self::new(Delimiter::new([0]))
    }

    /// A preset by its name, in lower case, with the variant after a colon where there is one.
    pub(super) fn preset(name: &str, variant: &str) -> Option<Self> {
        let prefix = |field| LengthPrefix::new(field);
        Some(match (name, variant) {
            ("lines", "" | "lf") => Self::lines(),
            ("lines", "crlf") => Self::new(Lines::new().ending(LineEnding::CrLf)),
            ("mllp", "") => Self::mllp(),
            ("iso8583", "" | "binary") => Self::iso8583(),
            ("iso8583", "inclusive") => Self::new(prefix(LengthField::u16_be()).adjust(-2)),
            ("iso8583", "ascii") => Self::length(LengthField::Decimal(4)),
            ("iso8583", "bcd") => Self::length(LengthField::Bcd(2)),
            ("iso8583", "visa") => Self::new(prefix(LengthField::u16_be()).adjust(2).strip(4)),
            ("iso8583", "u32") => Self::length(LengthField::u32_be()),
            ("modbus-tcp", "") => Self::modbus_tcp(),
            ("syslog", "") => Self::syslog(),
            ("syslog", "lf") => {
                let form = OctetCounting::new().detect_lines(true).send_lines(true);
                Self { form: form.into(), ..Self::syslog() }
            }
            ("stx-etx", "") => Self::stx_etx(),
            ("gelf", "") => Self::gelf(),
            _ => return None,
        })
    }
}
