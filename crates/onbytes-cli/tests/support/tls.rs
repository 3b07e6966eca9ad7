//! Certificates in a folder of their own, and the programs that speak TLS with ours.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

use super::{Lines, Server, Signal, finish, onbytes, one_line, run, signal};

/// The passwords of the environment, none of which a test is to find set.
const VARIABLES: [&str; 6] = [
    "ONBYTES_STORE_PASSWORD",
    "ONBYTES_KEY_PASSWORD",
    "ONBYTES_KEY_STORE_PASSWORD",
    "ONBYTES_TRUST_STORE_PASSWORD",
    "ONBYTES_CLIENT_KEY_PASSWORD",
    "ONBYTES_CLIENT_KEY_STORE_PASSWORD",
];

/// Both protocol versions, as s_client and s_server take them and as they are shown.
pub(crate) const VERSIONS: [(&str, &str); 2] = [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")];

/// A password that would be noticed.
pub(crate) const SECRET: &str = "hunter2hunter2";

/// Whether all of `tools` are here. Where one is not, the test says so and passes.
pub(crate) fn are_here(tools: &[&str]) -> bool {
    // Whatever OpenSSL and Java are asked for runs under this one.
    ["timeout"].iter().chain(tools).all(|tool| {
        let is_here = Command::new(tool).arg("--help").output().is_ok();
        if !is_here {
            eprintln!("SKIPPED: no {tool} on this machine");
        }
        is_here
    })
}

/// A command that ends by itself before long, whatever becomes of the test, and speaks English.
fn tool(name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", name]).env("LC_ALL", "C").env_remove("JAVA_TOOL_OPTIONS");
    command.env_remove("OPENSSL_CONF").stdin(Stdio::null());
    command
}

/// The words of a line, as a shell would split it that knows no quotes.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A folder that goes away with the test; programs run in it, so that names of files are short.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder in which `onbytes certs` has made its files.
    pub(crate) fn with_certs(args: &[&str]) -> Self {
        let folder = Self::new();
        folder.certs(args);
        folder
    }

    /// Has `onbytes certs` make its files here.
    pub(crate) fn certs(&self, args: &[&str]) {
        let output = run(self.onbytes(&[&["certs", "--out", "."], args].concat()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The program, in this folder.
    pub(crate) fn onbytes(&self, args: &[&str]) -> Command {
        self.here(onbytes(args))
    }

    pub(crate) fn here(&self, mut command: Command) -> Command {
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.current_dir(&self.0);
        command
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn tool(&self, name: &str, line: &str) -> Command {
        let mut command = tool(name);
        command.args(words(line)).current_dir(&self.0);
        command
    }

    /// Runs a tool, which succeeds, and returns all that it prints.
    #[track_caller]
    pub(crate) fn told(&self, name: &str, line: &str) -> String {
        let mut command = self.tool(name, line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = run(command);
        let text = all_of(&output);
        assert!(output.status.success(), "{name} {line}: {text}");
        text
    }

    #[track_caller]
    pub(crate) fn openssl(&self, line: &str) -> String {
        self.told("openssl", line)
    }

    #[track_caller]
    pub(crate) fn keytool(&self, line: &str) -> String {
        self.told("keytool", line)
    }

    /// What `openssl ca` needs to sign, to revoke and to list what is revoked.
    pub(crate) fn prepare_authority(&self) {
        self.write("ca.cnf", AUTHORITY);
        self.write("index.txt", "");
        self.write("serial", "1000\n");
        self.write("crlnumber", "01\n");
    }

    /// Has `openssl ca` do something in the name of ca.pem.
    #[track_caller]
    pub(crate) fn authority(&self, line: &str) {
        self.openssl(&format!("ca -batch -config ca.cnf -cert ca.pem -keyfile ca-key.pem {line}"));
    }

    /// Starts `onbytes serve echo` here, logging everything as JSON.
    pub(crate) fn serve(&self, line: &str) -> Server {
        let args = [&words(SERVE)[..], &words(line)].concat();
        let mut command = self.onbytes(&args);
        command.env("RUST_LOG", "debug");
        Server::ready(command)
    }

    /// Starts `openssl s_client` towards a server.
    pub(crate) fn s_client(&self, server: &Server, line: &str) -> Talk {
        self.s_client_to(server.addr, line)
    }

    pub(crate) fn s_client_to(&self, addr: SocketAddr, line: &str) -> Talk {
        let line = format!("s_client -connect {addr} {line}");
        Talk::start(self.tool("openssl", &line))
    }

    /// Starts `openssl s_server` on a free port, and returns it with the port.
    pub(crate) fn s_server(&self, line: &str) -> (Talk, String) {
        let line = format!("s_server -accept 127.0.0.1:0 {line}");
        let mut server = Talk::start(self.tool("openssl", &line));
        let ready = server.until("ACCEPT 127.0.0.1:");
        let (_, port) = ready.rsplit_once(':').unwrap();
        (server, port.to_owned())
    }

    /// Connects with the program to a server that sends lines back the other way round.
    #[track_caller]
    pub(crate) fn connects(&self, port: &str, line: &str) {
        self.gets(port, line, "gnop-gnip\n");
    }

    /// Connects with the program to a server that sends everything back.
    #[track_caller]
    pub(crate) fn connects_to_echo(&self, port: &str, line: &str) {
        self.gets(port, line, "ping-pong\n");
    }

    #[track_caller]
    fn gets(&self, port: &str, line: &str, answer: &str) {
        let output = self.connect(port, line);
        let told = all_of(&output);
        let is_calm = String::from_utf8_lossy(&output.stderr).lines().all(is_warning);
        let is_answered = output.stdout == answer.as_bytes();
        assert!(output.status.success() && is_answered && is_calm, "{line}: {told}");
    }

    /// Connects with the program to a server that it is not to connect to; returns its line.
    #[track_caller]
    pub(crate) fn does_not_connect(&self, port: &str, line: &str, parts: &[&str]) -> String {
        let mut output = self.connect(port, line);
        // A warning may come before it.
        let text = String::from_utf8(output.stderr).unwrap();
        let rest = text.lines().skip_while(|line| is_warning(line)).map(|line| format!("{line}\n"));
        output.stderr = rest.collect::<String>().into_bytes();
        let told = one_line(&output);
        assert_eq!(output.status.code(), Some(1), "{line}: {told}");
        assert!(output.stdout.is_empty(), "{line}");
        assert_parts(&told, parts);
        told
    }

    /// Runs `onbytes connect localhost PORT --tls` with a line to send.
    fn connect(&self, port: &str, line: &str) -> Output {
        let args = [&["connect", "localhost", port, "--tls"], &words(line)[..]].concat();
        let mut child = self.onbytes(&args).stdin(Stdio::piped()).spawn().unwrap();
        // It may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(b"ping-pong\n");
        finish(child)
    }
}

/// Whether a line of stderr is one of the log's.
fn is_warning(line: &str) -> bool {
    line.contains(" WARN onbytes: ")
}

const SERVE: &str = "serve echo --listen 127.0.0.1:0 --log-format json";

/// The flags that make a server of what `onbytes certs` has made.
pub(crate) const CERT: &str = "--cert-file cert.pem --key-file key.pem";

const AUTHORITY: &str = "\
[ca]
default_ca = this
[this]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = optional
";

pub(crate) fn all_of(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[track_caller]
pub(crate) fn assert_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?}: {text}");
    }
}

/// Another program that talks: what it prints on stdout and stderr, line by line.
pub(crate) struct Talk {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    lines: Lines,
    /// What has come so far.
    pub(crate) told: String,
}

impl Talk {
    pub(crate) fn start(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = command.spawn().unwrap();
        // With its copies of the pipe's end.
        drop(command);
        let stdin = child.stdin.take();
        Self { child: Some(child), stdin, lines: Lines::of(reader), told: String::new() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stdin.as_ref().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Sends a line and waits until it has come back.
    #[track_caller]
    pub(crate) fn echo(&mut self) {
        self.send("ping-pong\n");
        self.until("ping-pong");
    }

    /// The first line from now on that has `part` in it.
    #[track_caller]
    pub(crate) fn until(&mut self, part: &str) -> String {
        loop {
            let Some(line) = self.lines.next() else { panic!("no {part:?}: {}", self.told) };
            writeln!(self.told, "{line}").unwrap();
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for its end, and returns its exit code and all that it has told.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        for line in self.lines.rest() {
            writeln!(self.told, "{line}").unwrap();
        }
        let output = finish(self.child.take().unwrap());
        (output.status.code(), std::mem::take(&mut self.told))
    }

    /// Ends its stdin, waits for its end in order, and returns all that it has told.
    #[track_caller]
    pub(crate) fn finished(mut self) -> String {
        drop(self.stdin.take());
        let (code, told) = self.ended();
        assert_eq!(code, Some(0), "{told}");
        told
    }

    /// Waits for its end in failure, and returns all that it has told.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        let (code, told) = self.ended();
        assert!(code != Some(0) && code != Some(124), "{told}");
        told
    }

    /// Cuts it off without a word.
    pub(crate) fn kill(self) {
        // The program under `timeout`, which passes this on.
        signal(self.child.as_ref().unwrap().id(), Signal::TERM);
        self.ended();
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::TERM);
            if !thread::panicking() {
                let _ = child.wait();
            }
        }
    }
}

/// The end of the next connection in a server's log: its reason, and its error where it has one.
pub(crate) fn next_end(server: &Server) -> (String, String) {
    let line = server.log().find(r#""event":"closed""#);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let field = |name| line["fields"][name].as_str().unwrap_or_default().to_owned();
    (field("reason"), field("error"))
}
