//! All forms in a table: what each is for, and an example, which the library computes.

use std::fmt::Write;

use onbytes::Framing;

use super::detail::{self, Example};

/// Some forms that belong together.
struct Group {
    heading: &'static str,
    /// How its forms are written, where they have parts to choose; one line each.
    notes: &'static [&'static str],
    rows: &'static [Row],
}

/// A form.
struct Row {
    form: &'static str,
    what: &'static str,
    /// A message for its example.
    message: &'static [u8],
}

const fn row(form: &'static str, what: &'static str, message: &'static [u8]) -> Row {
    Row { form, what, message }
}

/// The header of Modbus/TCP, and the code of a function without data: read exception status.
const MODBUS: &[u8] = b"\x00\x01\x00\x00\x00\x02\x11\x07";

const GROUPS: [Group; 5] = [
    Group {
        heading: "Protocols",
        notes: &[],
        rows: &[
            row("mllp", "HL7 v2 (MLLP)", b"MSH|"),
            row("iso8583", "ISO 8583, length in 2 bytes", b"0800222000"),
            row("iso8583:inclusive", "ISO 8583, length counts itself", b"0800"),
            row("iso8583:ascii", "ISO 8583, 4 decimal digits", b"0800"),
            row("iso8583:bcd", "ISO 8583, 2 bytes of BCD", b"0800222000"),
            row("iso8583:visa", "ISO 8583, with 2 reserved bytes", b"0800"),
            row("iso8583:u32", "ISO 8583, length in 4 bytes", b"0800"),
            row("modbus-tcp", "Modbus/TCP, with its header", MODBUS),
            row("syslog", "syslog, sent counted (RFC 6587)", b"<13>hi"),
            row("syslog:lf", "syslog, sent as lines", b"<13>hi"),
            row("stx-etx", "terminals, scales, analyzers", b"hi"),
            row("gelf", "Graylog (GELF)", b"{}"),
        ],
    },
    Group {
        heading: "Text",
        notes: &["A line ends with LF or CRLF."],
        rows: &[
            row("lines", "lines, sent with LF", b"hi"),
            row("lines:crlf", "lines, sent with CRLF", b"hi"),
            row("lines,keep", "lines, delivered with their end", b"hi\n"),
        ],
    },
    Group {
        heading: "Marks",
        notes: &[
            "delim:HEX ends a frame. block:START:END stands around it, with tail=HEX, escape=HEX, restart",
            "(a start within begins a new one) and outside=skip or malformed (what is between frames).",
        ],
        rows: &[
            row("delim:00", "up to this byte", b"hi"),
            row("delim:0d", "lines that end with CR", b"hi"),
            row("delim:0d0a", "up to these bytes", b"hi"),
            row("delim:03,keep", "delivered with its end", b"hi\x03"),
            row("block:02:03", "between a start and an end", b"hi"),
            row("block:02:03,restart", "a start begins anew", b"hi"),
            row("block:0b:1c,tail=0d", "and a tail, if it is there", b"hi"),
        ],
    },
    Group {
        heading: "Lengths",
        notes: &[
            "len:FIELD: u8, u16be to u64be (high byte first), u16le to u64le (low byte first), dec1 to",
            "dec18, hex1 to hex15 (digits in ASCII), bcd1 to bcd9, varint. offset=N bytes stand before it,",
            "adjust=N is added to it; the first strip=N bytes are not delivered [up to its end].",
        ],
        rows: &[
            row("fixed:4", "always so many bytes", b"ping"),
            row("len:u8", "length in 1 byte", b"hi"),
            row("len:u16be", "2 bytes, high byte first", b"hi"),
            row("len:u16le", "2 bytes, low byte first", b"hi"),
            row("len:u32be", "4 bytes, high byte first", b"hi"),
            row("len:u32le", "4 bytes, low byte first", b"hi"),
            row("len:dec4", "4 decimal digits", b"hi"),
            row("len:hex4", "4 hexadecimal digits", b"hi"),
            row("len:bcd2", "2 bytes of BCD", b"0123456789"),
            row("len:varint", "varint (Protocol Buffers)", b"hi"),
            row("len:u16be,adjust=-2", "the length counts itself", b"hi"),
            row("len:u16be,offset=1", "a byte stands before the length", b"hi"),
            row("len:u8,offset=1,adjust=-2", "and it counts the header, too", b"hi"),
            row("len:u16be,strip=0", "delivered with the length", b"\0\x02hi"),
            row("octets", "digits and a space (RFC 6587)", b"hi"),
            row("netstring", "digits, a colon and a comma", b"hi"),
        ],
    },
    Group {
        heading: "Serial lines",
        notes: &[],
        rows: &[
            row("cobs", "COBS, and a zero byte", b"a\0b"),
            row("slip", "SLIP (RFC 1055)", b"\xc0"),
            row("block:1002:1003,escape=10", "DLE stuffing: DLE STX, DLE ETX", b"\x10"),
            row("block:7e:7e,escape=7d^20", "like HDLC and PPP (RFC 1662)", b"\x7e"),
            row("block:02:03,escape=1b", "STX to ETX, with an escape", b"\x03"),
        ],
    },
];

/// What the table tells of the form of a framing: those that are written so, and what for.
pub(super) fn uses(framing: &Framing) -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = GROUPS.iter().flat_map(|group| group.rows);
    let is_so = |row: &&Row| row.form.parse().is_ok_and(|it: Framing| it.form == framing.form);
    rows.filter(is_so).map(|row| (row.form, row.what))
}

/// All of it, and how to use it.
pub(super) fn text() -> String {
    let mut text =
        String::from("Forms, what they are for, and a message -> its frame in hexadecimal:\n");
    for group in &GROUPS {
        let _ = writeln!(text, "\n{}", group.heading);
        for note in group.notes {
            let _ = writeln!(text, "  {note}");
        }
        group.rows.iter().for_each(|row| row.write(&mut text));
    }
    text.push_str(&rules());
    text.push_str(USE);
    text
}

impl Row {
    fn write(&self, text: &mut String) {
        let example = self.form.parse().ok().and_then(|it| Example::of(&it, self.message));
        let example = example.map(|it| it.to_string()).unwrap_or_default();
        let _ = writeln!(text, "  {:<25}  {:<31}  {example}", self.form, self.what);
    }
}

/// The rules, with what holds where nothing is said.
fn rules() -> String {
    let most = |framing: Framing| detail::size(framing.max_frame);
    let of_protocols = format!(
        "largest frame received; mllp {}, syslog {}, modbus-tcp {}",
        most(Framing::mllp()),
        most(Framing::syslog()),
        most(Framing::modbus_tcp())
    );
    let any = Framing::lines();
    let mut text = String::from(
        "\nRules, behind any form with commas, and their defaults: len:u32be,max=64K,oversize=skip\n",
    );
    for ((_, default, _), (rule, what)) in detail::rules(&any).into_iter().zip([
        ("max=SIZE", &*of_protocols),
        ("oversize=close|skip|truncate", "a larger one: end the connection, drop it, or cut it"),
        ("malformed=close|skip", "what is no frame; skip: cobs, slip, escape, restart"),
        ("partial=report|deliver", "a frame that the end of the stream cuts off"),
        ("timeout=SECS|off", "from the first byte of a frame to its last"),
    ]) {
        let _ = writeln!(text, "  {rule:<28}  {default:<6}  {what}");
    }
    text
}

const USE: &str = "
Use:
  onbytes framing iso8583:visa                  one form in detail, with its rules
  onbytes framing len:u16be 00 02 68 69         the frames in captured bytes: does it fit?
  onbytes serve echo --framing mllp             a server; `onbytes connect --framing` is its client
";
