//! From the command line to a load that can be run.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use onbytes::{ClientConfiguration, ClientSecureSocket, ErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::args::BenchArgs;
use super::content::{Content, Expect};
use crate::failure::{Failure, shown};
use crate::notation::Notation;
use crate::tls::ClientTls;

/// How long messages are counted where nothing else is said.
const DURATION: Duration = Duration::from_secs(10);

/// The length of a message where nothing else is said.
const SIZE: usize = 64;

/// The largest message of one's own.
const LARGEST: usize = 256 << 20;

/// Files that are open beside the connections, and with each thread.
const FILES: usize = 32;
const FILES_OF_A_THREAD: usize = 8;

/// A load that can be run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) config: ClientConfiguration,
    pub(crate) content: Content,
    pub(crate) expect: Expect,
    /// The length of a message as it was asked for.
    pub(crate) size: usize,
    /// The form of frames as it was asked for.
    pub(crate) is_framed: bool,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) depth: usize,
    pub(crate) churn: bool,
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) duration: Option<Duration>,
    pub(crate) messages: Option<u64>,
    pub(crate) timeout: Duration,
}

impl Plan {
    pub(crate) fn of(args: &BenchArgs) -> Result<Self, Failure> {
        check_combinations(args)?;
        let (content, size) = content(args)?;
        let load = &args.load;
        let is_endless = load.messages.is_none() && load.duration.is_none();
        Ok(Self {
            host: args.host.clone(),
            port: args.port,
            config: configuration(args)?,
            content,
            expect: args.messages.expect,
            size,
            is_framed: args.messages.framing.is_some(),
            connections: load.connections,
            threads: load.threads,
            depth: load.depth,
            churn: load.churn,
            rate: load.rate,
            warmup: load.warmup,
            duration: load.duration.or(is_endless.then_some(DURATION)),
            messages: load.messages.map(|messages| messages as u64),
            timeout: load.timeout,
        })
    }

    /// Lets this process have the files that it takes.
    pub(crate) fn raise_limit_of_files(&self) -> Result<(), Failure> {
        // One that is closed may take a moment to be gone.
        let each = if self.churn { 2 } else { 1 };
        let needed = self.connections * each + self.threads * FILES_OF_A_THREAD + FILES;
        let needed = needed as u64;
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_none_or(|current| current >= needed) {
            return Ok(());
        }
        let connections = self.connections;
        if let Some(most) = limit.maximum.filter(|most| *most < needed) {
            let line = format!(
                "--connections {connections} takes {needed} open files, and this process may have {most}"
            );
            let hint = "give fewer, or raise the hard limit (ulimit -Hn)";
            return Err(Failure::outside(line).hint(hint));
        }
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).map_err(|error| {
            let line = format!("cannot raise the limit of open files to {needed}: {error}");
            Failure::outside(line).hint("give fewer --connections, or raise it (ulimit -n)")
        })
    }
}

fn check_combinations(args: &BenchArgs) -> Result<(), Failure> {
    let (load, messages, output) = (&args.load, &args.messages, &args.output);
    let refuse = |line: &str, hint| Err(Failure::usage(line).hint(hint));
    if load.churn && load.depth > 1 {
        let line = "--churn sends one message on each connection, so --depth does nothing";
        return refuse(line, "give one of the two");
    }
    if load.threads > load.connections {
        let (threads, connections) = (load.threads, load.connections);
        let line = format!("--threads {threads} is more than --connections {connections}");
        return refuse(&line, "give each thread a connection at least");
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if load.threads > 2 * cores {
        let line = format!("--threads {} is more than two for each core", load.threads);
        return refuse(&line, &format!("give at most {}", 2 * cores));
    }
    if messages.expect == Expect::Frame && messages.framing.is_none() {
        return refuse("--expect frame needs --framing", "give the form of the frames");
    }
    if messages.payload.is_some() && messages.size.is_some() {
        return refuse("--payload and --size are both given", "a payload has its own size");
    }
    if output.no_plot && output.text_plot {
        return refuse("--text-plot and --no-plot are both given", "give one of the two");
    }
    if output.json && output.text_plot {
        let hint = "leave it out; the object has the histogram";
        return refuse("--text-plot does nothing with --json", hint);
    }
    Ok(())
}

fn configuration(args: &BenchArgs) -> Result<ClientConfiguration, Failure> {
    let mut secure = args.tls.record()?;
    match &mut secure {
        Some(secure) => secure_once(secure, args),
        None if args.no_resumption => {
            return Err(Failure::usage("--no-resumption needs --tls").hint("give --tls too"));
        }
        None => {}
    }
    let config = ClientConfiguration::new()
        .connect_timeout(args.load.timeout)
        // Silence is noticed where it is known what is due.
        .timeout(None)
        .write_timeout(args.load.timeout)
        .socket(args.socket.record()?)
        .secure_socket(secure);
    config.check().map_err(|error| ClientTls::told(&error))?;
    Ok(config)
}

/// The same for all connections: these go to the address that has answered first, in the host's name.
fn secure_once(secure: &mut ClientSecureSocket, args: &BenchArgs) {
    secure.server_name.get_or_insert_with(|| args.host.clone());
    if args.no_resumption {
        secure.session_timeout = None;
    }
}

/// The messages, and the length of each.
fn content(args: &BenchArgs) -> Result<(Content, usize), Failure> {
    let depth = args.load.depth;
    let size = args.messages.size.unwrap_or(SIZE);
    let payload = args.messages.payload.as_deref().map(payload).transpose()?;
    let size = payload.as_ref().map_or(size, Vec::len);
    let content = match (&args.messages.framing, &payload) {
        (None, None) => Content::generated(size, depth),
        (None, Some(payload)) if payload.is_empty() => {
            return Err(Failure::usage("--payload is empty")
                .hint("give some bytes, or --framing with which an empty message can be sent"));
        }
        (None, Some(payload)) => Content::given(payload, depth),
        (Some(framing), None) => Content::generated_frames(framing, size, depth)
            .map_err(|error| no_frame(&error, "--size", "give another --size, or --payload"))?,
        (Some(framing), Some(payload)) => Content::given_frame(framing, payload, depth)
            .map_err(|error| no_frame(&error, "--payload", "give what can be one frame"))?,
    };
    Ok((content, size))
}

fn no_frame(error: &onbytes::Error, flag: &str, hint: &str) -> Failure {
    let line = match error.kind() {
        ErrorKind::Frame => format!("{flag} and --framing do not go together: {error}"),
        _ => format!("--framing: {error}"),
    };
    Failure::usage(line).hint(hint)
}

/// The bytes that the value of `--payload` stands for.
fn payload(text: &str) -> Result<Vec<u8>, Failure> {
    match text.strip_prefix('@') {
        Some(path) => read(Path::new(path)),
        None => Notation::Text
            .read(text.as_bytes())
            .map_err(|problem| Failure::usage(format!("--payload: {problem}"))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = shown(&path.display().to_string());
    let data = fs::read(path).map_err(|error| {
        Failure::outside(format!("--payload: cannot read \"{name}\": {error}"))
            .hint("give a file that can be read; \\x40 is an @ that names none")
    })?;
    if data.len() > LARGEST {
        let line =
            format!("--payload: \"{name}\" has {} bytes, and {LARGEST} is the most", data.len());
        return Err(Failure::outside(line).hint("give a smaller one"));
    }
    Ok(data)
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn planned(flags: &[&str]) -> Result<Plan, Failure> {
        let line = ["bench", "127.0.0.1", "3000"].iter().chain(flags);
        Plan::of(&Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).args)
    }

    /// The plan that flags make, for a server that is not asked.
    pub(crate) fn plan(flags: &[&str]) -> Plan {
        planned(flags).unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    fn refused(flags: &[&str]) -> String {
        planned(flags).map(|_| ()).expect_err(&flags.join(" ")).into_line()
    }

    #[test]
    fn without_flags_it_runs_for_ten_seconds() {
        let plan = plan(&[]);
        assert_eq!((plan.duration, plan.messages), (Some(DURATION), None));
        assert_eq!((plan.connections, plan.size, plan.depth), (50, 64, 1));
    }

    #[test]
    fn a_number_of_messages_takes_the_time_it_takes_unless_there_is_a_duration() {
        let alone = plan(&["--messages", "5"]);
        assert_eq!((alone.duration, alone.messages), (None, Some(5)));
        let both = plan(&["--messages", "5", "--duration", "0.5"]);
        assert_eq!((both.duration, both.messages), (Some(Duration::from_millis(500)), Some(5)));
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_way_out() {
        for (flags, part) in [
            (&["--churn", "--depth", "2"][..], "--depth does nothing"),
            (&["--threads", "2", "--connections", "1"], "more than --connections 1"),
            (&["--threads", "1024", "--connections", "2000"], "two for each core"),
            (&["--expect", "frame"], "needs --framing"),
            (&["--payload", "x", "--size", "1"], "both given"),
            (&["--payload", ""], "--payload is empty"),
            (&["--payload", "\\q"], "is no escape"),
            (&["--no-resumption"], "needs --tls"),
            (&["--text-plot", "--no-plot"], "both given"),
            (&["--json", "--text-plot"], "with --json"),
            (&["--framing", "fixed:10"], "64 bytes where a frame has 10"),
            (&["--framing", "lines", "--payload", "a\\nb"], "--payload and --framing"),
            (&["--framing", "len:u16be,max=10"], "--size and --framing"),
        ] {
            let line = refused(flags);
            assert!(line.contains(part) && line.contains("; "), "{flags:?}: {line}");
        }
    }

    #[test]
    fn every_form_takes_generated_frames_or_says_why_not() {
        for form in ["mllp", "lines", "len:u32le", "netstring", "slip", "cobs", "stx-etx"] {
            assert!(plan(&["--framing", form]).is_framed, "{form}");
        }
        assert_eq!(plan(&["--framing", "lines", "--payload", ""]).size, 0);
    }

    #[test]
    fn the_server_is_named_though_connections_go_to_its_address() {
        let plan = plan(&["--tls", "--no-resumption"]);
        let secure = plan.config.secure_socket.unwrap();
        assert_eq!(secure.server_name.as_deref(), Some("127.0.0.1"));
        assert_eq!(secure.session_timeout, None);
    }
}
