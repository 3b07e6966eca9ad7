//! `onbytes framing`: which forms frames can have, and what a form makes of bytes.

mod args;
mod capture;
mod detail;
mod table;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use onbytes::Framing;

pub(crate) use args::{FramingArgs, framing};

use crate::failure::Failure;
use crate::notation::{Notation, from_hex, hex};

/// What stands for stdin among the arguments.
const STDIN: &str = "-";

pub(crate) fn run(args: &FramingArgs) -> Result<ExitCode, Failure> {
    let Some(framing) = &args.form else {
        if args.encode {
            return Err(
                Failure::usage("--encode has no FORM").hint("give one; see onbytes framing")
            );
        }
        return print(&table::text()).map(|()| ExitCode::SUCCESS);
    };
    match (args.encode, &args.bytes[..]) {
        (true, []) => {
            Err(Failure::usage("--encode has no message").hint("give one or more, or - for stdin"))
        }
        (true, messages) => encode(framing, args.show, messages),
        (false, []) => print(&detail::text(framing, args.show)).map(|()| ExitCode::SUCCESS),
        (false, captured) => decode(framing, args.show, captured),
    }
}

/// Prints the frames in captured bytes.
fn decode(framing: &Framing, notation: Notation, captured: &[String]) -> Result<ExitCode, Failure> {
    let data = match captured {
        [word] if word == STDIN => {
            from_hex(&stdin()?).map_err(|problem| Failure::outside(format!("stdin: {problem}")))?
        }
        words => from_hex(words.join(" ").as_bytes())
            .map_err(|problem| Failure::usage(format!("BYTES: {problem}")))?,
    };
    let found = capture::frames_in(framing, data.into());
    print(&found.text(notation))?;
    match found.fault {
        Some(fault) => Err(Failure::outside(fault)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Prints the frame of each message.
fn encode(framing: &Framing, notation: Notation, messages: &[String]) -> Result<ExitCode, Failure> {
    let (messages, source): (Vec<Vec<u8>>, _) = match messages {
        [word] if word == STDIN => (lines(&stdin()?), "line"),
        words => (words.iter().map(|word| word.as_bytes().to_vec()).collect(), "message"),
    };
    for (number, message) in messages.iter().enumerate() {
        let place = format!("{source} {}", number + 1);
        let message = notation.read(message).map_err(|problem| match source {
            "message" => Failure::usage(problem).about(&place),
            _ => Failure::outside(problem).about(&place),
        })?;
        let frame =
            framing.encode(&message).map_err(|error| Failure::from(&error).about(&place))?;
        print(&format!("{}\n", hex(&frame)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines without their LF; what follows the last LF is one, too.
fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    match io::stdin().lock().read_to_end(&mut all) {
        Ok(_) => Ok(all),
        Err(error) => Err(Failure::outside(format!("cannot read stdin: {error}"))),
    }
}

/// A reader that has gone has seen what it wanted.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::outside(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
