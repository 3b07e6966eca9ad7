//! `cargo run --example iso8583_echo`: answers network management requests of ISO 8583 (sign-on, echo
//! test: 0800), on port 3000 or the one given.
//!
//! The message type and the fields are ASCII, the bitmap is binary, and the length before a message has
//! two bytes; the other forms of the length are presets, too: `"iso8583:ascii".parse()`. A request that
//! cannot be read is answered with 30 (format error); what is no such request ends the connection.

use std::collections::BTreeMap;

use onbytes::{Bytes, Event, Framing, Listener, ListenerConfiguration, Result, service_fn};

/// The field in which an answer says how it went.
const RESPONSE_CODE: usize = 39;

/// Fields by their numbers.
type Fields = BTreeMap<usize, Bytes>;

/// How many characters a field has; that of other fields is not known here.
fn length_of(field: usize) -> Option<usize> {
    match field {
        7 => Some(10),
        11 => Some(6),
        RESPONSE_CODE => Some(2),
        70 => Some(3),
        _ => None,
    }
}

/// Whether a field can have this character: all are numbers but the response code.
fn can_hold(field: usize, character: u8) -> bool {
    character.is_ascii_digit() || field == RESPONSE_CODE && character.is_ascii_alphabetic()
}

/// Reads bitmap and fields. Up to what cannot be read, `fields` has them, so that they can be echoed.
fn read_fields(data: &[u8], fields: &mut Fields) -> Result<()> {
    let has_second_bitmap = data.first().is_some_and(|byte| byte & 0x80 != 0);
    let size = if has_second_bitmap { 16 } else { 8 };
    let (bitmap, mut rest) = data.split_at_checked(size).ok_or("the bitmap is cut off")?;
    for number in 2..=size * 8 {
        let bit = number - 1;
        if bitmap[bit / 8] & (0x80 >> (bit % 8)) == 0 {
            continue;
        }
        let length =
            length_of(number).ok_or_else(|| format!("field {number} is not known here"))?;
        let (value, behind) =
            rest.split_at_checked(length).ok_or_else(|| format!("field {number} is cut off"))?;
        if !value.iter().all(|character| can_hold(number, *character)) {
            return Err(format!("field {number} cannot be '{}'", value.escape_ascii()).into());
        }
        fields.insert(number, Bytes::copy_from_slice(value));
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err("there is more than the bitmap says".into()) }
}

fn write_message(kind: &[u8], fields: &Fields) -> Bytes {
    let has_second_bitmap = fields.keys().any(|number| *number > 64);
    let mut bitmap = vec![0; if has_second_bitmap { 16 } else { 8 }];
    bitmap[0] |= u8::from(has_second_bitmap) << 7;
    for bit in fields.keys().map(|number| number - 1) {
        bitmap[bit / 8] |= 0x80 >> (bit % 8);
    }
    let values: Vec<u8> = fields.values().flatten().copied().collect();
    [kind, &bitmap, &values].concat().into()
}

fn answer(message: &[u8]) -> Result<Option<Bytes>> {
    if message.is_empty() {
        // A length of zero says that the line is alive, and no more.
        return Ok(None);
    }
    let Some(data) = message.strip_prefix(b"0800") else {
        let kind = message[..message.len().min(4)].escape_ascii();
        return Err(format!("'{kind}' is no network management request, which is 0800").into());
    };
    let mut fields = Fields::new();
    let read = read_fields(data, &mut fields);
    if let Err(error) = &read {
        eprintln!("a request with a format error: {error}");
    }
    fields.insert(RESPONSE_CODE, Bytes::from_static(if read.is_ok() { b"00" } else { b"30" }));
    Ok(Some(write_message(b"0810", &fields)))
}

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(3000, |port| port.parse().expect("a port"));
    let config = ListenerConfiguration::new().local_host("127.0.0.1").framing(Framing::iso8583());
    let listener = Listener::new(port, config)?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    let answering =
        service_fn(|_caller| async { Ok(|message: Bytes| async move { answer(&message) }) });
    listener.serve(answering).await?;
    Ok(())
}
