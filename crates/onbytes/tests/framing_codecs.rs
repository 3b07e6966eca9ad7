//! Every form of frames, without sockets: however its bytes are cut, the frames are the same.

use std::time::Duration;

use onbytes::{Bytes, ErrorKind, FrameDecoder, FrameMark, Framing};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Every form, with the options that make it another one.
const FORMS: &[&str] = &[
    "lines",
    "lines:crlf",
    "lines,keep",
    "delim:00",
    "delim:0d0a",
    "delim:0d0a0d0a",
    "delim:6161",
    "delim:61616261,keep",
    "delim:6162616261",
    "block:02:03",
    "block:02:03,outside=malformed",
    "block:0b:1c0d",
    "block:0b:1c,tail=0d",
    "block:61616262:62626161",
    "block:02:03,restart",
    "block:02:03,restart,malformed=skip,tail=0d0a",
    "block:02:03,escape=10",
    "block:02:03,escape=10,malformed=skip",
    "block:02:03,escape=7d^20",
    "block:02:03,escape=7d^20,malformed=skip",
    "block:02:03,escape=10,outside=malformed,tail=0d0a",
    "block:1002:1003,escape=10",
    "block:1002:1003,escape=10,malformed=skip",
    "block:1002:1003,escape=10,outside=malformed",
    "block:7e:7e,escape=7d^20",
    "block:7e:7e,escape=7d^20,malformed=skip",
    "fixed:1",
    "fixed:7",
    "len:u8",
    "len:u16be",
    "len:u16le",
    "len:u24be",
    "len:u32le",
    "len:u64be",
    "len:u16be,adjust=-2",
    "len:u16be,offset=4,strip=0",
    "len:u16be,offset=3,strip=2",
    "len:u16be,adjust=2,strip=4",
    "len:u16le,strip=5",
    "len:dec4",
    "len:hex4",
    "len:bcd2",
    "len:varint",
    "len:varint,adjust=2",
    "len:varint,adjust=-1",
    "octets",
    "syslog",
    "syslog:lf",
    "netstring",
    "cobs",
    "cobs,malformed=skip",
    "slip",
    "slip,malformed=skip",
    "mllp",
    "iso8583:visa",
    "modbus-tcp",
];

/// What a stream comes to: its frames, how many were skipped, and what ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    frames: Vec<(Bytes, FrameMark)>,
    dropped: u64,
    failure: Option<String>,
}

fn framing(text: &str) -> Framing {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Decodes `pieces` one after the other, and then the end.
fn decode<'a>(framing: &Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = FrameDecoder::new(framing).unwrap();
    let mut outcome = Outcome { frames: Vec::new(), dropped: 0, failure: None };
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => outcome.frames.push((frame.data, frame.mark)),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Frame);
                    outcome.failure = Some(error.to_string());
                    outcome.dropped = decoder.dropped();
                    return outcome;
                }
            }
        }
    }
    outcome.dropped = decoder.dropped();
    match decoder.finish() {
        Ok(last) => outcome.frames.extend(last.map(|frame| (frame.data, frame.mark))),
        Err(error) => outcome.failure = Some(error.to_string()),
    }
    outcome
}

/// Cuts `data` at these places.
fn cut<'a>(data: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(data.len() + 1)).collect();
    places.sort_unstable();
    places.push(data.len());
    let mut from = 0;
    places
        .into_iter()
        .map(|to| &data[std::mem::replace(&mut from, to)..to])
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// What is told of a failure must not depend on pieces, but for how much had come by then.
fn same(one: &Outcome, other: &Outcome) -> bool {
    let kind = |outcome: &Outcome| {
        outcome
            .failure
            .as_ref()
            .map(|text| text.chars().filter(|char| !char.is_ascii_digit()).collect::<String>())
    };
    one.frames == other.frames && one.dropped == other.dropped && kind(one) == kind(other)
}

/// Bytes of which many mean something to one form or another.
fn tricky_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let special = select(
        b"\0\x01\x02\x03\x04\x05\x0a\x0b\x0d\x10\x1c 0123456789:,ab\x5d\x5e\x7d\x7e\xc0\xdb\xdc\xdd\xfe\xff"
            .to_vec(),
    );
    vec(prop_oneof![4 => special, 1 => any::<u8>()], 0..most)
}

/// So many cases, or what `PROPTEST_CASES` says.
fn cases(usual: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { usual };
    ProptestConfig { cases, failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn what_was_encoded_is_decoded_however_it_is_cut(
        text in select(FORMS),
        messages in vec(tricky_bytes(40), 1..8),
        places in vec(any::<Index>(), 0..20),
    ) {
        let framing = framing(text);
        let sendable: Vec<_> = messages
            .iter()
            .filter_map(|message| Some((message, framing.encode(message).ok()?)))
            .collect();
        let wire: Vec<u8> = sendable.iter().flat_map(|(_, frame)| frame.to_vec()).collect();
        let outcome = decode(&framing, cut(&wire, &places));
        prop_assert_eq!(&outcome.failure, &None, "{}", text);
        prop_assert_eq!(outcome.frames.len(), sendable.len(), "{} {:?}", text, &outcome);
        for ((data, mark), (message, frame)) in outcome.frames.iter().zip(&sendable) {
            prop_assert_eq!(mark, &FrameMark::Whole);
            // What is delivered is the message, but for what is filled in or added.
            prop_assert_eq!(&framing.encode(data).unwrap(), frame, "{}", text);
            if !text.contains("strip") && !text.contains("keep") && text != "modbus-tcp" {
                prop_assert_eq!(&data[..], &message[..], "{}", text);
            }
        }
    }

    #[test]
    fn any_bytes_come_to_the_same_however_they_are_cut(
        text in select(FORMS),
        rules in select(&["", ",max=5", ",max=5,oversize=skip", ",max=5,oversize=truncate",
            ",max=3,oversize=truncate,partial=deliver", ",partial=deliver"][..]),
        data in tricky_bytes(200),
        places in vec(any::<Index>(), 0..30),
    ) {
        let Ok(framing) = format!("{text}{rules}").parse::<Framing>() else { return Ok(()) };
        let whole = decode(&framing, [&data[..]]);
        let pieces = decode(&framing, cut(&data, &places));
        prop_assert!(same(&whole, &pieces), "{} {:?} {:?}", framing, whole, pieces);
        let single = decode(&framing, data.chunks(1));
        prop_assert!(same(&whole, &single), "{} {:?} {:?}", framing, whole, single);
        for (frame, _) in &whole.frames {
            prop_assert!(frame.len() <= framing.max_frame);
        }
    }
}

/// The settings in the tables of the guide.
fn settings_of_the_guide() -> Vec<&'static str> {
    let page = include_str!("../docs/framing.md");
    let rows = page.lines().filter_map(|line| line.strip_suffix("` |"));
    rows.filter_map(|row| row.rsplit_once("| `")).map(|(_, setting)| setting).collect()
}

#[test]
fn every_setting_of_the_guide_is_one() {
    let settings = settings_of_the_guide();
    let protocols = settings.iter().filter(|setting| setting.parse::<Framing>().is_ok()).count();
    assert!(protocols > 35, "{settings:?}");
    // The rest is the table of length fields.
    for field in settings.iter().filter(|setting| setting.parse::<Framing>().is_err()) {
        let first = field.split('`').next().unwrap();
        framing(&format!("len:{first}"));
    }
}

#[test]
fn what_was_pushed_in_many_pieces_before_it_is_asked_for_is_all_there() {
    let mut decoder = FrameDecoder::new(&Framing::lines()).unwrap();
    for piece in ["on", "e\ntw", "o", "\n", "thr", "ee\nf"] {
        decoder.push(piece);
    }
    for expected in ["one", "two", "three"] {
        assert_eq!(decoder.next_frame().unwrap().unwrap().data, expected);
    }
    assert!(decoder.next_frame().unwrap().is_none());
    assert!(decoder.finish().is_err(), "there is half a frame");
}

#[test]
fn every_form_is_written_as_it_was_read() {
    for text in FORMS {
        let framing = framing(text);
        let again: Framing = framing.to_string().parse().unwrap();
        assert_eq!(framing, again, "{text}");
    }
}

#[test]
fn a_bound_that_is_not_the_protocols_is_written_too() {
    for text in ["syslog", "syslog:lf"] {
        for max in [Framing::MAX_FRAME, 64 * 1024, 100] {
            let framing = framing(text).max_frame(max);
            assert_eq!(framing.to_string().parse::<Framing>().unwrap(), framing, "{text} {max}");
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_rule_of_a_record_is_above_that_of_its_form() {
    let cases = [
        (r#"{"form": "lines,timeout=10", "timeout": 60}"#, "lines"),
        (r#"{"form": "lines,timeout=10", "timeout": "off"}"#, "lines,timeout=off"),
        (r#"{"form": "lines,timeout=10"}"#, "lines,timeout=10"),
        (r#"{"form": "lines,timeout=10", "timeout": null}"#, "lines,timeout=10"),
        (r#"{"form": "syslog,max=10", "maxFrame": 65536}"#, "syslog"),
        (r#"{"form": "lines,oversize=skip", "oversize": "close"}"#, "lines"),
    ];
    for (record, text) in cases {
        assert_eq!(serde_json::from_str::<Framing>(record).unwrap(), framing(text), "{record}");
    }
    assert!(serde_json::from_str::<Framing>(r#"{"form": "lines", "timeout": "of"}"#).is_err());
}

#[test]
fn every_time_is_written_as_it_was_read() {
    for time in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_nanos(1),
        Duration::new(123_456_789, 123_456_789),
        Duration::from_millis(1_500),
        Framing::TIMEOUT,
    ] {
        let framing = Framing::lines().timeout(time);
        let text = framing.to_string();
        assert_eq!(text.parse::<Framing>().unwrap(), framing, "{text}");
    }
    assert_eq!(framing("lines,timeout=1e3"), Framing::lines().timeout(Duration::from_secs(1000)));
    for text in ["", ".", "-1", "nan", "inf", "1e400", "18446744073709551616", "0.0", "ü.1"] {
        assert!(format!("lines,timeout={text}").parse::<Framing>().is_err(), "{text}");
    }
}

#[test]
fn marks_that_cannot_be_told_apart_are_refused() {
    for text in [
        "block:02:03,tail=024103",
        "block:0d0b:1c,tail=0d",
        "block:7e:7e,escape=7d^20,tail=7e",
        "block:7e:7e,escape=7d^20,tail=0d",
        "block:02:03,escape=02",
        "block:02:03,escape=10^13",
        "block:1002:1002,escape=10",
        "block:1002:1003,escape=10^20",
        "block:0203:04,escape=10",
        "block:0203:04,restart",
        "block:02:02,restart",
        "block:02:03,restart,escape=10",
    ] {
        let error = text.parse::<Framing>().expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
    }
}

#[test]
fn an_offset_beyond_all_bounds_is_refused() {
    for field in ["u8", "u16be", "dec18"] {
        let text = format!("len:{field},offset={}", usize::MAX);
        let error = text.parse::<Framing>().expect_err(&text);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
    }
}

#[test]
fn a_start_behind_an_escape_is_skipped_with_its_frame_and_the_next_one_is_delivered() {
    let framing = framing("block:02:03,escape=7d^20,malformed=skip");
    let stream = b"\x02a\x7d\x02b\x03";
    for place in 0..stream.len() {
        let outcome = decode(&framing, [&stream[..place], &stream[place..]]);
        assert_eq!(outcome.failure, None, "cut at {place}");
        assert_eq!(outcome.dropped, 1, "cut at {place}");
        assert_eq!(
            outcome.frames,
            [(Bytes::from_static(b"b"), FrameMark::Whole)],
            "cut at {place}"
        );
    }
}

#[test]
fn half_a_start_before_a_frame_is_malformed_in_any_pieces() {
    for text in ["block:1002:1003,escape=10,outside=malformed", "block:0b0c:1c,outside=malformed"] {
        let framing = framing(text);
        let frame = framing.encode(b"abc").unwrap();
        let stream = [&frame[..1], &frame].concat();
        for place in 0..stream.len() {
            let outcome = decode(&framing, [&stream[..place], &stream[place..]]);
            assert!(outcome.failure.is_some(), "{text}, cut at {place}: {outcome:?}");
        }
    }
}
