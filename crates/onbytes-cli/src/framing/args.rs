//! What can be asked of `onbytes framing`, and the value of `--framing`.

use clap::Args;
use onbytes::Framing;

use crate::notation::Notation;

/// Find the right --framing: all forms, one in detail, or the frames in captured bytes
///
/// A stream of bytes has no messages; a framing tells where one ends and the next begins. It is
/// written as a form, or the name of a protocol, and rules: mllp, or len:u32be,max=64K.
///
/// Without arguments it lists them all. With FORM it tells that one in detail. With FORM and BYTES it
/// shows the frames in these, one a line: the places of its bytes, from 0 (the second place is the
/// one behind it), what it is, and its content. What is skipped or left over has a line of its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  onbytes framing                     all forms, with what they are for, and the rules
  onbytes framing iso8583:visa        one of them
  onbytes framing len:u16be 00 02 68 69 00 03 61 62 63
  xxd -p capture.bin | onbytes framing mllp -
  onbytes framing --encode mllp 'MSH|one\\r' 'MSH|two\\r'

Exit status: 0 when it is done, 1 if the bytes are not all frames of that form, or a message cannot
be one, or stdin cannot be read, 2 if the command line is wrong.")]
pub(crate) struct FramingArgs {
    /// The form, or the name of a protocol, and rules
    #[arg(value_parser = framing)]
    pub(super) form: Option<Framing>,

    /// Captured bytes in hexadecimal, two digits each; spaces, colons, commas, line breaks and 0x may
    /// stand between them; - reads them from stdin. With --encode: messages, or - for lines of stdin
    pub(super) bytes: Vec<String>,

    /// How messages are written
    #[arg(long, value_name = "HOW", default_value = "text")]
    pub(super) show: Notation,

    /// The other way: print the frame of each message, in hexadecimal
    #[arg(long)]
    pub(super) encode: bool,
}

/// The value of `--framing`.
pub(crate) fn framing(text: &str) -> Result<Framing, String> {
    text.parse().map_err(|error: onbytes::Error| {
        let message = error.to_string();
        message.strip_prefix("framing: ").unwrap_or(&message).to_owned()
    })
}
