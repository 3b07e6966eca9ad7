//! `onbytes connect`: stdin goes to the server, what the server sends goes to stdout; in `frames`, frame
//! by frame.

mod frames;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;

use bytes::BytesMut;
use onbytes::{Client, ClientConfiguration, ClientReader, ClientWriter, Error, ErrorKind, Framing};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Stdout};
use tokio::runtime::Builder;

use crate::args::{ConnectArgs, LogFormat};
use crate::failure::Failure;
use crate::logging;
use crate::notation::Notation;
use crate::tls::ClientTls;

/// The most that is read from stdin at once, and so the most that is in memory on its way.
const CHUNK: usize = 64 * 1024;

/// What shells report of a program that Ctrl-C has ended.
pub(crate) const INTERRUPTED: u8 = 130;

pub(crate) fn run(args: &ConnectArgs) -> Result<ExitCode, Failure> {
    // Warnings of TLS, such as a certificate that has expired, go to stderr.
    let _log = logging::start(LogFormat::Text)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::outside(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            result = talk(args) => result.map(|()| ExitCode::SUCCESS),
            Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(INTERRUPTED)),
        }
    });
    // Not waited for: a thread of it may wait for a stdin that never ends.
    runtime.shutdown_background();
    outcome
}

async fn talk(args: &ConnectArgs) -> Result<(), Failure> {
    let config = configuration(args)?;
    config.check().map_err(|error| ClientTls::told(&error))?;
    let client = Client::connect(&args.host, args.port, config)
        .await
        .map_err(|error| not_connected(&error, args))?;
    let server = client.remote_addr();
    let is_secured = client.tls().is_some();
    let received = exchange(client, args).await.map_err(|stop| stop.told(server, args))?;
    if !is_secured && received.is_alert() {
        let line =
            format!("connection to {server}: the server speaks TLS, and answered with an alert");
        return Err(Failure::outside(line).hint("give --tls"));
    }
    Ok(())
}

/// What is remembered of what the server has sent: its beginning.
#[derive(Default)]
struct Received {
    beginning: Vec<u8>,
}

impl Received {
    /// The length of a TLS alert that is not encrypted (RFC 8446, section 6).
    const ALERT: usize = 7;

    fn note(&mut self, data: &[u8]) {
        // One byte more tells whether that was all.
        let room = (Self::ALERT + 1).saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// Whether it was a fatal alert and nothing else: what a TLS server says to plain text.
    fn is_alert(&self) -> bool {
        matches!(self.beginning[..], [21, 3, _, 0, 2, 2, _])
    }
}

fn configuration(args: &ConnectArgs) -> Result<ClientConfiguration, Failure> {
    if args.show.is_some() && args.framing.is_none() {
        return Err(Failure::usage("--show does nothing without --framing").hint("give both"));
    }
    let config = ClientConfiguration::new()
        .connect_timeout(args.connect_timeout.0)
        .timeout(args.timeout.0)
        .write_timeout(args.write_timeout.0)
        .framing(args.framing.clone())
        .socket(args.socket.record()?)
        .secure_socket(args.tls.record()?);
    Ok(match &args.local_host {
        Some(host) => config.local_host(host),
        None => config,
    })
}

fn not_connected(error: &Error, args: &ConnectArgs) -> Failure {
    let failure = ClientTls::told(error);
    match error.kind() {
        // Values that cannot be were found before; what is left are files.
        ErrorKind::Configuration => failure.of_a_file(),
        ErrorKind::Tls if error.to_string().contains("does not speak TLS") => {
            failure.hint("leave --tls out, or give the port of TLS")
        }
        ErrorKind::Tls => failure,
        ErrorKind::Timeout if is_of_handshake(error) => {
            failure.hint("does the server speak TLS? --handshake-timeout sets how long it may take")
        }
        _ => failure.hint(way_in(error, args)),
    }
}

/// Whether it was the handshake that took too long, rather than the way there.
fn is_of_handshake(error: &Error) -> bool {
    error.to_string().starts_with("the TLS handshake")
}

/// What may help where connecting has failed.
fn way_in(error: &Error, args: &ConnectArgs) -> &'static str {
    match system_error(error) {
        _ if error.is_timeout() => "--connect-timeout sets how long it may take",
        Some(io::ErrorKind::ConnectionRefused) => "does a server listen there?",
        Some(io::ErrorKind::AddrNotAvailable) if args.local_host.is_some() => {
            "give an address of this machine to --local-host"
        }
        _ => "check HOST and PORT",
    }
}

/// What ends an exchange before the server does.
enum Stop {
    Stdin(io::Error),
    /// A line of stdin, by its number, is no frame.
    Line(u64, String),
    Stdout(io::Error),
    Connection(Error),
}

/// Carries both directions until the server ends its own.
async fn exchange(client: Client, args: &ConnectArgs) -> Result<Received, Stop> {
    let (reader, writer) = client.into_split();
    let framed = args.framing.as_ref().map(|framing| (framing, args.show.unwrap_or_default()));
    let mut receiving = pin!(receive(reader, framed));
    let sent = tokio::select! {
        // The server's end is the end, whatever stdin might still bring.
        received = &mut receiving => return received,
        sent = send(writer, framed) => sent,
    };
    match sent {
        Ok(()) => receiving.await,
        Err(Stop::Connection(error)) => {
            // A server that has gone may have said something before.
            let received = receiving.await?;
            // What is sent behind the server's end breaks the pipe, and that is no failure.
            match system_error(&error) {
                Some(io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) => Ok(received),
                _ => Err(Stop::Connection(error)),
            }
        }
        Err(stop) => Err(stop),
    }
}

/// How frames are told apart and written, where there are any.
type Framed<'a> = Option<(&'a Framing, Notation)>;

/// Sends stdin, then our end (FIN).
async fn send(writer: ClientWriter, framed: Framed<'_>) -> Result<(), Stop> {
    match framed {
        Some((framing, notation)) => frames::send(&writer, framing, notation).await?,
        None => send_bytes(&writer).await?,
    }
    writer.finish().await.map_err(Stop::Connection)
}

async fn send_bytes(writer: &ClientWriter) -> Result<(), Stop> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        if stdin.read_buf(&mut buffer).await.map_err(Stop::Stdin)? == 0 {
            return Ok(());
        }
        let data = buffer.split().freeze();
        writer.write_bytes(data).await.map_err(Stop::Connection)?;
    }
}

/// Prints what the server sends, until its end, or until nobody reads it any more.
async fn receive(mut reader: ClientReader, framed: Framed<'_>) -> Result<Received, Stop> {
    if let Some((_, notation)) = framed {
        return frames::receive(reader, notation).await.map(|()| Received::default());
    }
    let mut received = Received::default();
    let mut stdout = tokio::io::stdout();
    while let Some(data) = reader.read_bytes().await.map_err(Stop::Connection)? {
        received.note(&data);
        if !print(&mut stdout, &data).await? {
            break;
        }
    }
    Ok(received)
}

/// Prints `data` at once; tells whether somebody reads it.
async fn print(stdout: &mut Stdout, data: &[u8]) -> Result<bool, Stop> {
    let printed = match stdout.write_all(data).await {
        Ok(()) => stdout.flush().await,
        failed => failed,
    };
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        printed => printed.map(|()| true).map_err(Stop::Stdout),
    }
}

impl Stop {
    fn told(&self, server: SocketAddr, args: &ConnectArgs) -> Failure {
        match self {
            Self::Stdin(error) => Failure::outside(format!("cannot read stdin: {error}")),
            Self::Line(number, problem) => {
                Failure::outside(format!("line {number} of stdin: {problem}"))
            }
            Self::Stdout(error) => Failure::outside(format!("cannot write to stdout: {error}")),
            Self::Connection(error) => {
                let failure = ClientTls::told(error).about(&format!("connection to {server}"));
                match error.kind() {
                    ErrorKind::Frame => failure.hint(frames::way_out(error)),
                    ErrorKind::Timeout if args.timeout.0.is_some() => {
                        failure.hint("--timeout sets how long it may take")
                    }
                    _ => failure,
                }
            }
        }
    }
}

/// The kind of the system's error behind `error`.
fn system_error(error: &Error) -> Option<io::ErrorKind> {
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    Some(cause.kind())
}
