//! One frame a line, in both directions.

use onbytes::{ClientReader, ClientWriter, Error, ErrorKind, FrameMark, Framing};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Stdin};

use super::{Stop, print};
use crate::notation::Notation;

/// Sends each line of stdin as one frame.
pub(super) async fn send(
    writer: &ClientWriter,
    framing: &Framing,
    notation: Notation,
) -> Result<(), Stop> {
    let mut lines = Lines::new(framing);
    while let Some(line) = lines.next().await? {
        let of_line = |problem| Stop::Line(lines.number, problem);
        let message: onbytes::Bytes = notation.read(&line).map_err(of_line)?.into();
        if let Err(error) = writer.write_bytes(message.clone()).await {
            // A connection that has failed because of the server's frames says so here, too.
            return Err(match framing.encode(&message) {
                Err(problem) if error.kind() == ErrorKind::Frame => of_line(problem.to_string()),
                _ => Stop::Connection(error),
            });
        }
    }
    Ok(())
}

/// Prints each frame that the server sends as one line.
pub(super) async fn receive(mut reader: ClientReader, notation: Notation) -> Result<(), Stop> {
    let mut stdout = tokio::io::stdout();
    let mut number = 0u64;
    let result = loop {
        match reader.read_bytes().await {
            Ok(Some(data)) => {
                number += 1;
                note(number, data.len(), reader.frame_mark());
                let line = notation.write(&data) + "\n";
                if !print(&mut stdout, line.as_bytes()).await? {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(Stop::Connection(error)),
        }
    };
    let skipped = reader.stats().frames_dropped;
    if skipped > 0 {
        tracing::warn!(skipped, "frames were skipped, as the rules of --framing say");
    }
    result
}

/// Tells on stderr that a frame is not whole.
fn note(number: u64, len: usize, mark: FrameMark) {
    match mark {
        FrameMark::Truncated(total) => {
            tracing::warn!("frame {number} is cut: the first {len} of its {total} bytes are shown");
        }
        FrameMark::Partial => {
            tracing::warn!("frame {number} is not whole: the server has ended within it");
        }
        _ => {}
    }
}

/// What may help where what the server sends is no frame.
pub(super) fn way_out(error: &Error) -> &'static str {
    if error.to_string().contains("is the most") {
        "max and oversize in --framing say what is taken"
    } else {
        "is --framing the form that the server uses? see onbytes framing"
    }
}

/// The lines of stdin.
struct Lines {
    stdin: BufReader<Stdin>,
    /// The most bytes in a line.
    most: usize,
    /// The number of the last line, from 1.
    number: u64,
}

impl Lines {
    /// A line of so many bytes is always taken.
    const LEAST: usize = 16 * 1024 * 1024;

    /// A byte takes four in a line where it is escaped.
    const ESCAPED: usize = 4;

    fn new(framing: &Framing) -> Self {
        let most = framing.max_frame.saturating_mul(Self::ESCAPED).max(Self::LEAST);
        Self { stdin: BufReader::new(tokio::io::stdin()), most, number: 0 }
    }

    /// The next line, without its LF; what follows the last LF is one, too.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let mut line = Vec::new();
        let with_end = (self.most as u64).saturating_add(1);
        let mut stdin = (&mut self.stdin).take(with_end);
        if stdin.read_until(b'\n', &mut line).await.map_err(Stop::Stdin)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > self.most {
            let problem =
                format!("it has more than {} bytes; give a greater max in --framing", self.most);
            return Err(Stop::Line(self.number, problem));
        }
        Ok(Some(line))
    }
}
