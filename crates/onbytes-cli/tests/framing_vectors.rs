//! The program makes the same frames of the same bytes as the library: those of its file of vectors.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use onbytes::Framing;
use support::{Server, client, count, finish, onbytes, serve_one, text};

struct Vector {
    line: &'static str,
    form: &'static str,
    bytes: Vec<u8>,
    /// In hexadecimal, without what the file says of them.
    frames: Vec<String>,
    end: &'static str,
    skipped: u64,
}

fn vectors() -> impl Iterator<Item = Vector> {
    let lines = include_str!("../../onbytes/tests/framing_vectors.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let fields: Vec<_> = line.split(';').map(str::trim).collect();
        let [form, bytes, frames, end] = fields[..] else { panic!("{line}") };
        let (end, skipped) = end.split_once(" x").unwrap_or((end, "0"));
        let bare = |frame: &str| frame.trim_end_matches(['*', '~']).replace('-', "");
        Vector {
            line,
            form,
            bytes: unhex(bytes),
            frames: frames.split_whitespace().map(bare).collect(),
            end,
            skipped: skipped.parse().expect(line),
        }
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn connect_prints_the_frames_of_every_vector() {
    for vector in vectors() {
        let bytes = vector.bytes.clone();
        let (port, serving) = serve_one(move |mut stream: TcpStream| {
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let output = finish(client(&["--framing", vector.form, "--show", "hex"], port));
        serving.join().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.lines().collect::<Vec<_>>(), vector.frames, "{}", vector.line);
        // Half a frame that is to be delivered is no failure.
        let is_well = vector.end == "end" || vector.form.contains("deliver");
        assert_eq!(output.status.success(), is_well, "{}", vector.line);
    }
}

#[test]
fn framing_finds_the_frames_of_every_vector_in_captured_bytes() {
    for vector in vectors() {
        let hex: String = vector.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let output = support::run(onbytes(&["framing", vector.form, &hex, "--show", "hex"]));
        let printed = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Vec<&str>> =
            printed.lines().map(|line| line.split_whitespace().collect()).collect();
        let frames: Vec<_> = rows
            .iter()
            .filter(|row| matches!(row[2], "frame" | "truncated" | "partial"))
            .map(|row| row.get(3).copied().unwrap_or_default())
            .collect();
        assert_eq!(frames, vector.frames, "{}\n{printed}", vector.line);
        let is_well = vector.end == "end" || vector.form.contains("deliver");
        assert_eq!(output.status.success(), is_well, "{}", vector.line);
    }
}

#[test]
fn serve_echoes_the_frames_of_every_vector() {
    let mut forms: BTreeMap<&str, Vec<Vector>> = BTreeMap::new();
    for vector in vectors() {
        forms.entry(vector.form).or_default().push(vector);
    }
    for (form, vectors) in forms {
        let framing: Framing = form.parse().unwrap();
        let server = Server::logging(&["echo", "--framing", form]);
        for vector in vectors {
            let mut peer = TcpStream::connect(server.addr).unwrap();
            // The server may have had enough already.
            let _ = peer.write_all(&vector.bytes);
            let _ = peer.shutdown(Shutdown::Write);
            let mut echo = Vec::new();
            peer.read_to_end(&mut echo).unwrap();
            let expected: Vec<u8> = vector
                .frames
                .iter()
                .flat_map(|frame| framing.encode(&unhex(frame)).expect(vector.line))
                .collect();
            assert_eq!(echo, expected, "{}", vector.line);
            let closed = server.log().find("\"closed\"");
            let reason = text(&closed, "reason");
            let expected = match vector.end {
                "end" => "peer_closed",
                "too_long" => "frame_too_long",
                "malformed" => "frame_malformed",
                _ => "partial_frame",
            };
            assert_eq!(reason, expected, "{}", vector.line);
            assert_eq!(count(&closed, "frames_dropped"), vector.skipped, "{}", vector.line);
        }
    }
}
