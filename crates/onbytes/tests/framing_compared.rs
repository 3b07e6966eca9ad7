//! Where tokio-util has a codec for the same form, both find the same frames and write the same bytes.

use bytes::BytesMut;
use onbytes::{Bytes, FrameDecoder, Framing};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_util::bytes;
use tokio_util::codec::length_delimited::Builder;
use tokio_util::codec::{AnyDelimiterCodec, Decoder, Encoder, LengthDelimitedCodec, LinesCodec};

/// The frames that `codec` finds in `data`, whole ones only.
fn theirs<C: Decoder>(mut codec: C, data: &[u8]) -> Vec<C::Item> {
    let mut rest = BytesMut::from(data);
    std::iter::from_fn(|| codec.decode(&mut rest).ok().flatten()).collect()
}

/// The frames that `framing` finds in `data`, which comes in two pieces.
fn ours(framing: &str, data: &[u8], cut: usize) -> Vec<Bytes> {
    let framing: Framing = framing.parse().unwrap();
    let mut decoder = FrameDecoder::new(&framing).unwrap();
    let mut frames = Vec::new();
    for piece in [&data[..cut], &data[cut..]] {
        decoder.push(Bytes::copy_from_slice(piece));
        frames.extend(std::iter::from_fn(|| decoder.next_frame().ok().flatten()));
    }
    frames.into_iter().map(|frame| frame.data).collect()
}

fn written<M, C: Encoder<M>>(mut codec: C, message: M) -> BytesMut {
    let mut out = BytesMut::new();
    assert!(codec.encode(message, &mut out).is_ok());
    out
}

fn lengths(set: impl FnOnce(&mut Builder) -> &mut Builder) -> LengthDelimitedCodec {
    set(&mut LengthDelimitedCodec::builder()).new_codec()
}

/// Text that is cut into lines of all kinds.
fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), Just(b';')], 0..60)
}

proptest! {
    #[test]
    fn lines_are_those_of_the_lines_codec(data in text(), cut in any::<prop::sample::Index>()) {
        let expected: Vec<_> = theirs(LinesCodec::new(), &data).into_iter().map(Bytes::from).collect();
        prop_assert_eq!(ours("lines", &data, cut.index(data.len() + 1)), expected);
    }

    #[test]
    fn a_delimiter_is_that_of_the_delimiter_codec(data in text(), cut in any::<prop::sample::Index>()) {
        let codec = AnyDelimiterCodec::new(b";".to_vec(), b";".to_vec());
        prop_assert_eq!(ours("delim:3b", &data, cut.index(data.len() + 1)), theirs(codec, &data));
    }

    #[test]
    fn lengths_are_those_of_the_length_codec(
        data in vec(prop_oneof![3 => 0u8..6, 1 => any::<u8>()], 0..80),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(data.len() + 1);
        let check = |framing: &str, codec: LengthDelimitedCodec| {
            let expected: Vec<_> = theirs(codec, &data).into_iter().map(BytesMut::freeze).collect();
            (ours(framing, &data, cut), expected)
        };
        for (ours, theirs) in [
            check("len:u8", lengths(|codec| codec.length_field_length(1))),
            check("len:u16be", lengths(|codec| codec.length_field_length(2))),
            check("len:u24le", lengths(|codec| codec.length_field_length(3).little_endian())),
            // What it adds has the header, too, where nothing is skipped.
            check("len:u8,offset=2,adjust=1,strip=0", lengths(|codec| codec.length_field_offset(2).length_field_length(1).length_adjustment(4).num_skip(0))),
            check("len:u16be,adjust=-2,strip=2", lengths(|codec| codec.length_field_length(2).length_adjustment(-2).num_skip(2))),
        ] {
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn what_is_written_is_the_same(message in vec(0u8..128, 0..300)) {
        let ours = |form: &str| form.parse::<Framing>().unwrap().encode(&message);
        let codec = || lengths(|codec| codec.length_field_length(2));
        let theirs = written(codec(), Bytes::from(message.clone()));
        prop_assert_eq!(ours("len:u16be").unwrap(), theirs.freeze());
        if let Ok(frame) = ours("delim:3b") {
            let codec = AnyDelimiterCodec::new(b";".to_vec(), b";".to_vec());
            let text = String::from_utf8_lossy(&message).into_owned();
            if text.as_bytes() == message {
                prop_assert_eq!(frame, written(codec, text).freeze());
            }
        }
    }
}
