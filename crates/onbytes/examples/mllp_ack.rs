//! `cargo run --example mllp_ack`: acknowledges HL7 v2 messages over MLLP, on port 2575 or the one given.
//!
//! Try it with
//! `printf '\013MSH|^~\\&|LAB|A|HIS|B|2026||ADT^A01|17|P|2.5\r\034\r' | nc 127.0.0.1 2575 | od -c`.
//! Here AA means that the message was read; where it matters, store the message before you say so.

use std::sync::atomic::{AtomicU64, Ordering};

use onbytes::{Bytes, Event, Framing, Listener, ListenerConfiguration, Result, service_fn};

/// The first segment of a message, which declares the separators of all.
struct Header<'a> {
    /// MSH-1, which stands between fields.
    separator: u8,
    /// `MSH`, MSH-2, MSH-3 and so on: MSH-1 is the separator behind `MSH`.
    fields: Vec<&'a [u8]>,
}

impl<'a> Header<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let segment = message.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
        let separator = *segment.strip_prefix(b"MSH")?.first()?;
        let fields: Vec<_> = segment.split(|byte| *byte == separator).collect();
        let declares_components = fields.get(1).is_some_and(|others| !others.is_empty());
        (separator.is_ascii_punctuation() && declares_components)
            .then_some(Self { separator, fields })
    }

    /// What is answered to where the message declares nothing.
    fn unknown() -> Self {
        Self { separator: b'|', fields: vec![b"MSH", b"^~\\&"] }
    }

    /// MSH-`number`, from 2 on; empty where it is missing.
    fn field(&self, number: usize) -> &'a [u8] {
        self.fields.get(number - 1).copied().unwrap_or_default()
    }

    /// `ACK^A01^ACK` for `ADT^A01`.
    fn kind_of_answer(&self) -> Vec<u8> {
        let component = self.field(2)[0];
        match self.field(9).split(|byte| *byte == component).nth(1) {
            Some(trigger) => [b"ACK", trigger, b"ACK"].join(&component),
            None => b"ACK".to_vec(),
        }
    }

    /// The acknowledgement: it comes from whom the message was for.
    fn answer(&self, code: &str, text: &str) -> Bytes {
        let (time, id) = time_and_control_id();
        let or = |field: &'a [u8], otherwise| if field.is_empty() { otherwise } else { field };
        let header: [&[u8]; 12] = [
            b"MSH",
            self.field(2),
            self.field(5),
            self.field(6),
            self.field(3),
            self.field(4),
            time.as_bytes(),
            b"",
            &self.kind_of_answer(),
            id.as_bytes(),
            or(self.field(11), b"P"),
            or(self.field(12), b"2.5"),
        ];
        let told: [&[u8]; 4] = [b"MSA", code.as_bytes(), self.field(10), text.as_bytes()];
        let told = if text.is_empty() { &told[..3] } else { &told[..] };
        let segments = [header.join(&self.separator), told.join(&self.separator), vec![]];
        segments.join(&b'\r').into()
    }
}

/// The time of an answer, and a name that no other answer has, in the 20 characters that it may have.
fn time_and_control_id() -> (String, String) {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let now = time::OffsetDateTime::now_utc();
    let (date, clock) = (now.date(), now.time());
    let day = format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day());
    let time = format!("{day}{:02}{:02}{:02}", clock.hour(), clock.minute(), clock.second());
    let number = ANSWERS.fetch_add(1, Ordering::Relaxed) % 1_000_000;
    (format!("{time}+0000"), format!("{time}{number:06}"))
}

/// The answer to a message; none to an answer, or two that acknowledge would never end.
fn acknowledge(message: &[u8]) -> Option<Bytes> {
    let Some(header) = Header::read(message) else {
        return Some(Header::unknown().answer("AR", "this is no HL7 message, it has no MSH"));
    };
    if header.field(9).starts_with(b"ACK") {
        return None;
    }
    if header.field(10).is_empty() {
        return Some(header.answer("AR", "it has no control id"));
    }
    Some(header.answer("AA", ""))
}

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(2575, |port| port.parse().expect("a port"));
    let config = ListenerConfiguration::new().local_host("127.0.0.1").framing(Framing::mllp());
    let listener = Listener::new(port, config)?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    let acknowledging = service_fn(|_caller| async {
        Ok(|message: Bytes| async move { Ok(acknowledge(&message)) })
    });
    listener.serve(acknowledging).await?;
    Ok(())
}
