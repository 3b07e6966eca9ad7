//! `onbytes certs`, judged by OpenSSL and by Java's keytool.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use support::{finish, onbytes, onbytes_in_shell, one_line, run};
use tempfile::TempDir;

const VARIABLE: &str = "ONBYTES_STORE_PASSWORD";
const ALONE: [&str; 4] = ["cert.pem", "key.pem", "keystore.p12", "truststore.p12"];
const WITH_CA: [&str; 9] = [
    "ca-key.pem",
    "ca.pem",
    "cert.pem",
    "client-key.pem",
    "client.p12",
    "client.pem",
    "key.pem",
    "keystore.p12",
    "truststore.p12",
];
const SECRETS: [&str; 5] =
    ["key.pem", "keystore.p12", "ca-key.pem", "client-key.pem", "client.p12"];

/// A folder for certificates, which is not there yet.
struct Folder {
    temp: TempDir,
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("certs");
        Self { temp, path }
    }

    /// A folder in which `onbytes certs` with `args` has just made its files.
    fn made(args: &[&str]) -> Self {
        let folder = Self::new();
        folder.make(args);
        folder
    }

    fn out(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = onbytes(&[&["certs", "--out", self.out()], args].concat());
        command.env_remove(VARIABLE);
        command
    }

    /// Runs `onbytes certs`, which succeeds, and returns what it prints.
    #[track_caller]
    fn make(&self, args: &[&str]) -> String {
        succeeded(&run(self.command(args)))
    }

    fn file(&self, name: &str) -> String {
        self.path.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path.join(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path.join(name)).unwrap().permissions().mode() & 0o7777
    }

    fn names(&self) -> Vec<String> {
        names(&self.path)
    }

    /// Files with their content.
    fn content(&self) -> Vec<(String, Vec<u8>)> {
        self.names().into_iter().map(|name| (name.clone(), self.read(&name))).collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts that a command fails with `code` and one line that has `parts` in it.
#[track_caller]
fn fails(command: Command, code: i32, parts: &[&str]) -> String {
    let output = run(command);
    let line = one_line(&output);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(line.contains(part), "{part:?}: {line}");
    }
    line
}

/// Whether a tool is here. Where it is not, the test says so and passes.
fn is_here(tool: &str) -> bool {
    let is_here = Command::new(tool).arg("--help").output().is_ok();
    if !is_here {
        eprintln!("SKIPPED: no {tool} on this machine");
    }
    is_here
}

fn tool(name: &str, args: &[&str]) -> Output {
    // In English, whatever is spoken on this machine.
    let mut command = Command::new(name);
    command.args(args).env("LC_ALL", "C").env_remove("JAVA_TOOL_OPTIONS");
    command.output().unwrap()
}

/// Runs a tool, which succeeds, and returns all that it prints.
#[track_caller]
fn told(name: &str, args: &[&str]) -> String {
    let output = tool(name, args);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {text}");
    text
}

#[track_caller]
fn openssl(args: &[&str]) -> String {
    told("openssl", args)
}

/// What OpenSSL says of a certificate.
#[track_caller]
fn text(certificate: &str) -> String {
    openssl(&["x509", "-in", certificate, "-noout", "-text"])
}

#[track_caller]
fn assert_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?}: {text}");
    }
}

#[track_caller]
fn assert_belong_together(certificate: &str, key: &str) {
    let of_certificate = openssl(&["x509", "-in", certificate, "-noout", "-pubkey"]);
    let of_key = openssl(&["pkey", "-in", key, "-pubout"]);
    assert!(of_key.starts_with("-----BEGIN PUBLIC KEY-----"), "{of_key}");
    assert_eq!(of_certificate, of_key);
}

/// What keytool lists of a store.
#[track_caller]
fn listed(store: &str, password: &str) -> String {
    let args = ["-list", "-v", "-storetype", "PKCS12", "-keystore", store, "-storepass", password];
    told("keytool", &args)
}

#[test]
fn exactly_the_promised_files_are_made_and_keys_are_the_owners_alone() {
    for (flags, files) in [(&[][..], &ALONE[..]), (&["--ca"], &WITH_CA)] {
        let folder = Folder::new();
        let args = [&["certs", "--out", folder.out()], flags].concat();
        // Nothing but the program itself keeps others from reading keys.
        let mut command = onbytes_in_shell("umask 0; exec \"$@\"", &args);
        command.env_remove(VARIABLE);
        let stdout = succeeded(&run(command));
        assert_eq!(folder.names(), files);
        for name in files {
            let mode = if SECRETS.contains(name) { 0o600 } else { 0o644 };
            assert_eq!(folder.mode(name), mode, "{name}");
            assert!(stdout.contains(&format!("  {name} ")), "{name}: {stdout}");
        }
    }
}

#[test]
fn keys_have_their_mode_before_they_have_content() {
    if !is_here("strace") {
        return;
    }
    let folder = Folder::new();
    let log = folder.temp.path().join("log");
    let line = "exec strace -f -o \"$LOG\" -e trace=file,desc \"$@\"";
    let mut command = onbytes_in_shell(line, &["certs", "--ca", "--out", folder.out()]);
    command.env("LOG", &log).env_remove(VARIABLE);
    let output = run(command);
    if folder.temp.path().read_dir().unwrap().count() < 2 || !output.status.success() {
        eprintln!("SKIPPED: strace cannot trace here");
        return;
    }
    let log = fs::read_to_string(log).unwrap();
    let created: Vec<_> = log.lines().filter(|line| line.contains("O_CREAT")).collect();
    assert_eq!(created.len(), WITH_CA.len(), "{created:#?}");
    for line in created {
        let is_secret = SECRETS.iter().any(|name| line.contains(&format!(".{name}.")));
        let mode = if is_secret { ", 0600)" } else { ", 0644)" };
        assert!(line.contains("O_EXCL") && line.contains(mode), "{line}");
    }
    assert!(!log.contains("chmod"), "{log}");
}

#[test]
fn a_certificate_alone_is_a_servers_signed_by_itself() {
    if !is_here("openssl") {
        return;
    }
    let folder = Folder::made(&[]);
    let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    let text = text(&cert);
    assert_parts(
        &text,
        &[
            "Version: 3 (0x2)",
            "NIST CURVE: P-256",
            "Issuer: CN = localhost\n",
            "Subject: CN = localhost\n",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n",
            "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            "                DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1\n",
            "X509v3 Subject Key Identifier",
            "X509v3 Authority Key Identifier",
        ],
    );
    assert_belong_together(&cert, &key);
    assert!(folder.read("key.pem").starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
    for check in [["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"]] {
        let args = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", &cert];
        openssl(&[&args, &check[..], &[&cert]].concat());
    }
}

#[test]
fn with_a_ca_it_has_signed_a_server_and_a_client() {
    if !is_here("openssl") {
        return;
    }
    let folder = Folder::made(&["--ca", "--host", "example.org"]);
    let [ca, cert, client] = ["ca.pem", "cert.pem", "client.pem"].map(|name| folder.file(name));
    assert_belong_together(&ca, &folder.file("ca-key.pem"));
    assert_belong_together(&cert, &folder.file("key.pem"));
    assert_belong_together(&client, &folder.file("client-key.pem"));

    let verify = ["verify", "-x509_strict", "-CAfile", &ca, "-purpose"];
    let server = ["sslserver", "-verify_hostname", "example.org", &cert];
    openssl(&[&verify[..], &server].concat());
    openssl(&[&verify[..], &["sslclient", &client]].concat());
    // Neither can do the other's part.
    let swapped = [&verify[..], &["sslserver", &client]].concat();
    assert!(!tool("openssl", &swapped).status.success());

    assert_parts(
        &text(&ca),
        &[
            "Version: 3 (0x2)",
            "Subject: CN = onbytes CA\n",
            "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n",
            "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        ],
    );
    assert_parts(
        &text(&client),
        &[
            "Version: 3 (0x2)",
            "Issuer: CN = onbytes CA\n",
            "Subject: CN = onbytes client\n",
            "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n",
            "                DNS:client\n",
            "CA:FALSE\n",
        ],
    );
    assert_parts(
        &text(&cert),
        &[
            "Issuer: CN = onbytes CA\n",
            "Subject: CN = example.org\n",
            "TLS Web Server Authentication\n",
            "CA:FALSE\n",
        ],
    );
}

#[test]
fn hosts_become_alternative_names_each_once_and_the_first_the_common_name() {
    if !is_here("openssl") {
        return;
    }
    let long = format!("{}.example", "a".repeat(63));
    let hosts = ["*.Example.org", "192.0.2.1", "[2001:db8::1]", "LOCALHOST", "192.0.2.1", &long];
    let folder = Folder::made(&hosts.map(|host| ["--host", host]).concat());
    let text = text(&folder.file("cert.pem"));
    let names = format!(
        "                DNS:*.example.org, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1, \
         DNS:localhost, DNS:{long}, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1\n"
    );
    assert_parts(&text, &["Subject: CN = *.example.org\n", &names]);

    // A common name has no room for so long a name, but the certificate is for it all the same.
    let folder = Folder::made(&["--host", &long]);
    let cert = folder.file("cert.pem");
    openssl(&["verify", "-x509_strict", "-CAfile", &cert, "-verify_hostname", &long, &cert]);
}

#[test]
fn certificates_are_valid_from_an_hour_ago_for_the_wanted_days_and_at_most_366() {
    if !is_here("openssl") {
        return;
    }
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let is_valid = |folder: &Folder, time: u64| {
        let (ca, time) = (folder.file("ca.pem"), time.to_string());
        let verdict = |name: &str| {
            let certificate = folder.file(name);
            let args = ["verify", "-attime", &time, "-CAfile", &ca, &certificate];
            tool("openssl", &args).status.success()
        };
        let verdicts = ["ca.pem", "cert.pem", "client.pem"].map(verdict);
        assert!(verdicts[0] == verdicts[1] && verdicts[1] == verdicts[2], "{verdicts:?}");
        verdicts[0]
    };
    for (flags, length) in [
        (&["--ca"][..], 365 * DAY),
        (&["--ca", "--days", "1"], DAY),
        (&["--ca", "--days", "366"], 366 * DAY - HOUR),
    ] {
        // It is made at a second that lies between these two.
        let before = now();
        let folder = Folder::made(flags);
        let after = now();
        assert!(!is_valid(&folder, before - HOUR - 1), "{flags:?}");
        assert!(is_valid(&folder, after - HOUR), "{flags:?}");
        // OpenSSL does not count the last second.
        assert!(is_valid(&folder, before + length - 2), "{flags:?}");
        assert!(!is_valid(&folder, after + length), "{flags:?}");
    }
}

#[test]
fn no_two_certificates_have_the_same_serial_number_or_key() {
    if !is_here("openssl") {
        return;
    }
    let folders = [Folder::made(&["--ca"]), Folder::made(&["--ca"])];
    for part in ["-serial", "-pubkey"] {
        let of =
            |folder: &Folder, name| openssl(&["x509", "-in", &folder.file(name), "-noout", part]);
        let all = folders.iter();
        let all = all.flat_map(|f| ["ca.pem", "cert.pem", "client.pem"].map(|name| of(f, name)));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6, "{all:#?}");
    }
}

#[test]
fn every_type_of_key_is_read_by_openssl_and_java() {
    for (kind, name) in [("p256", "P-256"), ("p384", "P-384"), ("ed25519", "ED25519")] {
        let folder = Folder::made(&["--ca", "--key-type", kind]);
        let (ca, store) = (folder.file("ca.pem"), folder.file("keystore.p12"));
        if is_here("openssl") {
            for (certificate, key) in [
                ("ca.pem", "ca-key.pem"),
                ("cert.pem", "key.pem"),
                ("client.pem", "client-key.pem"),
            ] {
                let (certificate, key) = (folder.file(certificate), folder.file(key));
                assert_parts(&text(&certificate), &[name]);
                assert_belong_together(&certificate, &key);
                openssl(&["verify", "-x509_strict", "-CAfile", &ca, &certificate]);
            }
        }
        if is_here("keytool") {
            assert_parts(&listed(&store, "changeit"), &["Entry type: PrivateKeyEntry"]);
        }
    }
}

#[test]
fn openssl_reads_the_stores_and_finds_modern_encryption() {
    if !is_here("openssl") {
        return;
    }
    let folder = Folder::made(&["--ca"]);
    let read = |name: &str, password: &str| {
        let (store, password) = (folder.file(name), format!("pass:{password}"));
        tool("openssl", &["pkcs12", "-info", "-nodes", "-in", &store, "-passin", &password])
    };
    let pem = |name: &str| String::from_utf8(folder.read(name)).unwrap();
    for (store, certificates, key) in [
        ("keystore.p12", &["cert.pem", "ca.pem"][..], Some("key.pem")),
        ("client.p12", &["client.pem", "ca.pem"], Some("client-key.pem")),
        ("truststore.p12", &["ca.pem"], None),
    ] {
        let output = read(store, "changeit");
        let about = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{about}");
        assert_parts(&about, &["MAC: sha256, Iteration 10000\n"]);
        let encrypted = "PBES2, PBKDF2, AES-256-CBC, Iteration 10000, PRF hmacWithSHA256";
        assert_eq!(about.matches(encrypted).count(), 1 + usize::from(key.is_some()), "{about}");
        let content = String::from_utf8(output.stdout).unwrap();
        assert_eq!(content.matches("BEGIN CERTIFICATE").count(), certificates.len(), "{store}");
        for name in certificates.iter().copied().chain(key) {
            assert!(content.contains(&pem(name)), "{store} has no {name}");
        }
        assert_eq!(content.contains("PRIVATE KEY"), key.is_some(), "{store}");
        assert!(!read(store, "changeIt").status.success(), "{store}");
    }
}

#[test]
fn keytool_lists_the_stores() {
    if !is_here("keytool") {
        return;
    }
    for (flags, trusted) in [(&[][..], "server"), (&["--ca"], "ca")] {
        let folder = Folder::made(flags);
        let key_store = listed(&folder.file("keystore.p12"), "changeit");
        let length = format!("Certificate chain length: {}\n", 1 + flags.len());
        let alias = "Alias name: server\n";
        let parts = ["contains 1 entry", alias, "Entry type: PrivateKeyEntry", &length];
        assert_parts(&key_store, &parts);
        let trust_store = listed(&folder.file("truststore.p12"), "changeit");
        let alias = format!("Alias name: {trusted}\n");
        let parts = ["contains 1 entry", &alias, "Entry type: trustedCertEntry"];
        assert_parts(&trust_store, &parts);
    }
    let folder = Folder::made(&["--ca"]);
    let parts = ["Alias name: client\n", "PrivateKeyEntry", "Certificate chain length: 2\n"];
    assert_parts(&listed(&folder.file("client.p12"), "changeit"), &parts);
}

#[test]
fn nothing_is_written_where_any_file_is_there_already() {
    for (flags, files) in [(&[][..], &ALONE[..]), (&["--ca"], &WITH_CA)] {
        for name in files {
            let folder = Folder::new();
            fs::create_dir(&folder.path).unwrap();
            fs::write(folder.path.join(name), "mine").unwrap();
            fails(folder.command(flags), 1, &[&folder.file(name), "exists already", "--force"]);
            assert_eq!(folder.content(), [((*name).to_owned(), b"mine".to_vec())]);
        }
    }
    // A link to nothing is there, too.
    let folder = Folder::new();
    fs::create_dir(&folder.path).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path.join("key.pem")).unwrap();
    fails(folder.command(&[]), 1, &[&folder.file("key.pem"), "--force"]);
    assert_eq!(folder.names(), ["key.pem"]);
}

#[test]
fn with_force_every_file_is_replaced_at_once_and_the_new_ones_belong_together() {
    let folder = Folder::made(&["--ca"]);
    let old = folder.content();
    // Keys that somebody has made readable do not stay so.
    fs::set_permissions(folder.file("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    // What has a file open reads all of the old one: it is replaced, not written over.
    let mut open: Vec<_> = WITH_CA.map(|name| File::open(folder.file(name)).unwrap()).into();
    folder.make(&["--ca", "--force"]);
    let new = folder.content();
    assert_eq!(folder.names(), WITH_CA);
    for (number, file) in open.iter_mut().enumerate() {
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        let (name, old) = &old[number];
        assert!(&content == old, "{name} was written over");
        assert!(&new[number].1 != old, "{name} is still the old one");
    }
    assert_eq!(folder.mode("key.pem"), 0o600);
    if is_here("openssl") {
        assert_belong_together(&folder.file("cert.pem"), &folder.file("key.pem"));
        let (ca, cert) = (folder.file("ca.pem"), folder.file("cert.pem"));
        openssl(&["verify", "-CAfile", &ca, &cert]);
    }
}

#[test]
fn a_disk_without_room_leaves_everything_as_it_was() {
    // The largest store has no room, the files before it have.
    let line = "trap '' XFSZ; ulimit -f 2; exec \"$@\"";
    let run_without_room = |folder: &Folder, flags: &[&str]| {
        let args = [&["certs", "--ca", "--out", folder.out()], flags].concat();
        let mut command = onbytes_in_shell(line, &args);
        command.env_remove(VARIABLE);
        fails(command, 1, &[&folder.file("keystore.p12"), "cannot write"]);
    };
    let folder = Folder::new();
    run_without_room(&folder, &[]);
    assert!(folder.names().is_empty());

    folder.make(&["--ca"]);
    let old = folder.content();
    run_without_room(&folder, &["--force"]);
    assert!(folder.content() == old);
}

#[test]
fn what_cannot_be_replaced_is_told_before_anything_is() {
    let folder = Folder::made(&[]);
    fs::remove_file(folder.file("truststore.p12")).unwrap();
    fs::create_dir(folder.file("truststore.p12")).unwrap();
    let old = folder.read("cert.pem");
    fails(folder.command(&["--force"]), 1, &[&folder.file("truststore.p12"), "is a folder"]);
    assert_eq!(folder.names(), ALONE);
    assert!(folder.read("cert.pem") == old);
}

#[test]
fn runs_at_the_same_time_leave_files_of_one_of_them() {
    if !is_here("openssl") {
        return;
    }
    let folder = Folder::made(&[]);
    for _ in 0..3 {
        let start = |_| folder.command(&["--force"]).spawn().unwrap();
        let running: Vec<_> = (0..4).map(start).collect();
        let ended: Vec<_> = running.into_iter().map(finish).collect();
        assert!(ended.iter().any(|output| output.status.success()));
        for output in ended.iter().filter(|output| !output.status.success()) {
            let line = one_line(output);
            assert!(line.contains("another program is writing"), "{line}");
        }
        assert_eq!(folder.names(), ALONE);
        assert_belong_together(&folder.file("cert.pem"), &folder.file("key.pem"));
    }
}

#[test]
fn the_folder_is_made_with_those_above_it() {
    let folder = Folder::new();
    let deep = folder.path.join("a/b");
    let mut command = onbytes(&["certs", "--out", deep.to_str().unwrap()]);
    command.env_remove(VARIABLE);
    succeeded(&run(command));
    assert_eq!(names(&deep), ALONE);
}

#[test]
fn a_folder_that_cannot_be_had_is_told_with_exit_code_1() {
    let folder = Folder::new();
    fs::write(&folder.path, "no folder").unwrap();
    fails(folder.command(&[]), 1, &["--out", folder.out(), "no folder", "give another"]);
    let below = Folder { path: folder.path.join("below"), temp: folder.temp };
    fails(below.command(&["--force"]), 1, &["--out", below.out(), "give another"]);
}

#[test]
fn what_was_made_is_printed_with_fingerprint_expiry_and_the_next_commands() {
    let folder = Folder::new();
    let stdout = folder.make(&["--host", "example.org"]);
    let dir = folder.out();
    assert_parts(
        &stdout,
        &[
            &format!("made in {dir}:\n"),
            "cert.pem is for example.org, localhost, 127.0.0.1, ::1\n",
            "password of the .p12 files: changeit ",
            &format!(
                "\n  onbytes serve echo --cert-file {dir}/cert.pem --key-file {dir}/key.pem\n  \
                 onbytes connect localhost 3000 --tls --cert {dir}/cert.pem\n"
            ),
        ],
    );
    if is_here("openssl") {
        let cert = folder.file("cert.pem");
        let told = |args: &[&str]| {
            let text = openssl(&[&["x509", "-in", &cert, "-noout"], args].concat());
            text.trim().split_once('=').unwrap().1.to_owned()
        };
        let fingerprint = told(&["-fingerprint", "-sha256"]);
        let end = told(&["-enddate", "-dateopt", "iso_8601"]).replace('Z', " UTC");
        let parts =
            [&format!("SHA-256 fingerprint: {fingerprint}\n"), &format!("expires: {end}\n")];
        assert_parts(&stdout, &parts.map(String::as_str));
    }

    let stdout = folder.make(&["--ca", "--force"]);
    let expected = format!(
        "\n  onbytes serve echo --cert-file {dir}/cert.pem --key-file {dir}/key.pem \
         --client-ca {dir}/ca.pem\n  onbytes connect localhost 3000 --tls --cert {dir}/ca.pem \
         --client-cert {dir}/client.pem --client-key {dir}/client-key.pem\n"
    );
    assert_parts(&stdout, &[&expected]);
}

#[test]
fn a_folder_with_a_space_is_one_word_in_the_next_commands() {
    let folder = Folder::new();
    let folder = Folder { path: folder.path.join("my certs"), temp: folder.temp };
    let stdout = folder.make(&[]);
    assert_parts(&stdout, &[&format!("--cert-file '{}'", folder.file("cert.pem"))]);
}

#[test]
fn a_closed_stdout_is_no_trouble() {
    for line in ["exec \"$@\" >&-", "exec \"$@\" >/dev/full"] {
        let folder = Folder::new();
        let mut command = onbytes_in_shell(line, &["certs", "--out", folder.out()]);
        command.env_remove(VARIABLE);
        succeeded(&run(command));
        assert_eq!(folder.names(), ALONE, "{line}");
    }
    // A reader that has gone.
    let folder = Folder::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = folder.command(&[]);
    command.stdout(writer);
    succeeded(&run(command));
}

#[test]
fn impossible_values_are_refused_by_flag_with_the_way_out() {
    let folder = Folder::new();
    let long = "a".repeat(5_000);
    for (flag, values, way_out) in [
        ("--days", &["0", "367", "-1", "1.5", "1e2", "+1", "", "forever"][..], "from 1 to 366"),
        (
            "--host",
            &["", " ", "a b", "a..b", "-a", "a:80", "300.1.1.1", "fe80::1%eth0", "a\nb", "a/b"],
            "example.org",
        ),
        ("--host", &["*", "*.org", "a.*.org", "*a.example.org"], "*.example.org"),
        ("--host", &["bücher.example"], "xn--"),
        ("--host", &[&long], "(5000 characters)"),
        ("--key-type", &["rsa", "P256"], "p256, p384 or ed25519"),
    ] {
        for value in values {
            let flag_and_value = format!("{flag}={value}");
            let line = fails(folder.command(&[&flag_and_value]), 2, &[flag, way_out]);
            let is_quoted = line.contains(&format!("'{}", value.escape_debug()));
            assert!(is_quoted || value.is_empty() || value.len() > 100, "{line}");
        }
    }
    assert!(!folder.path.exists());

    fails(onbytes(&["certs"]), 2, &["missing --out", "see onbytes certs --help"]);
    fails(onbytes(&["certs", "--out", ""]), 2, &["--out", "give a folder"]);
    fails(folder.command(&["--frob"]), 2, &["'--frob'", "see onbytes certs --help"]);
    fails(folder.command(&["frob"]), 2, &["'frob'", "see onbytes certs --help"]);
}

/// A password that would be noticed.
const SECRET: &str = "hunter2hunter2";

#[test]
fn the_password_comes_from_flag_file_or_environment_and_shows_nowhere() {
    let files = Folder::new();
    fs::create_dir(&files.path).unwrap();
    fs::write(files.path.join("password"), format!("{SECRET}\r\nmore\n")).unwrap();
    let file = files.file("password");
    for (args, variable) in [
        (&["--store-password", SECRET][..], None),
        (&["--store-password-file", &file], None),
        (&[], Some(SECRET)),
        // The command line goes before the environment.
        (&["--store-password", SECRET], Some("another-one")),
        (&["--store-password-file", &file], Some("another-one")),
    ] {
        let folder = Folder::new();
        let mut command = folder.command(args);
        if let Some(password) = variable {
            command.env(VARIABLE, password);
        }
        let stdout = succeeded(&run(command));
        assert!(!stdout.contains(SECRET) && !stdout.contains("changeit"), "{stdout}");
        assert_parts(&stdout, &["password of the .p12 files: as given\n"]);
        for store in ["keystore.p12", "truststore.p12"] {
            let store = folder.file(store);
            let opens = |password: &str| {
                let password = format!("pass:{password}");
                let args = ["pkcs12", "-noout", "-in", &store, "-passin", &password];
                tool("openssl", &args).status.success()
            };
            if is_here("openssl") {
                assert!(opens(SECRET) && !opens("changeit") && !opens("another-one"), "{args:?}");
            }
        }
        if is_here("keytool") {
            listed(&folder.file("truststore.p12"), SECRET);
        }
    }
}

#[test]
fn a_password_of_all_that_a_keyboard_has_is_taken_by_java_and_openssl() {
    let password = r#"-a b&<>"'\z~$!;|`*{"#;
    let folder = Folder::made(&["--store-password", password]);
    let store = folder.file("keystore.p12");
    if is_here("openssl") {
        let given = format!("pass:{password}");
        openssl(&["pkcs12", "-noout", "-in", &store, "-passin", &given]);
    }
    if is_here("keytool") {
        listed(&store, password);
    }
}

#[test]
fn a_password_that_java_does_not_take_is_refused_and_not_shown() {
    let folder = Folder::new();
    for (password, problem) in [
        ("", "too short"),
        ("x9x9x", "too short"),
        ("pässwörd", "characters that Java refuses"),
        ("tab\there", "characters that Java refuses"),
    ] {
        let parts = ["--store-password: ", problem, "at least 6 characters"];
        let line = fails(folder.command(&["--store-password", password]), 2, &parts);
        assert!(password.is_empty() || !line.contains(password), "{line}");
    }
    let mut command = folder.command(&[]);
    command.env(VARIABLE, "x9x9x");
    let line = fails(command, 2, &[VARIABLE, "too short"]);
    assert!(!line.contains("x9x9x"), "{line}");
    let mut command = folder.command(&[]);
    command.env(VARIABLE, "");
    fails(command, 2, &[VARIABLE, "is empty", "unset it"]);
    assert!(!folder.path.exists());
}

#[test]
fn no_mistake_beside_a_password_shows_it() {
    let folder = Folder::new();
    fs::create_dir(&folder.path).unwrap();
    let file = folder.file("password");
    fs::write(&file, SECRET).unwrap();
    let both = ["--store-password", SECRET, "--store-password-file", &file];
    let joined = format!("--store-password={SECRET}");
    let misspelt = format!("--store-pasword={SECRET}");
    let dashed = format!("-{SECRET}");
    let parts = |parts: &[&'static str]| parts.to_vec();
    for (args, parts) in [
        (&both[..], parts(&["--store-password and --store-password-file", "give one"])),
        (&[&joined, &joined], parts(&["--store-password is given twice"])),
        (&[&joined, "--days", "0"], parts(&["--days"])),
        (&["--store-password", &dashed, "--days", "0"], parts(&["--days"])),
        (&["--store-password", "my", SECRET], parts(&["an argument too many", "quotes"])),
        (&["--store-password=my", SECRET], parts(&["an argument too many", "quotes"])),
        (&[&misspelt], parts(&["'--store-pasword'", "did you mean --store-password?"])),
        (&[&joined, "--force=yes"], parts(&["--force"])),
    ] {
        let line = fails(folder.command(args), 2, &parts);
        assert!(!line.contains(SECRET), "{line}");
    }
    let raw = [SECRET.as_bytes(), b"\xff"].concat();
    for before in ["--store-password", ""] {
        let mut command = folder.command(&[]);
        if before.is_empty() {
            let joined = [joined.as_bytes(), b"\xff"].concat();
            command.arg(std::ffi::OsStr::from_bytes(&joined));
        } else {
            command.args([before]).arg(std::ffi::OsStr::from_bytes(&raw));
        }
        let line = fails(command, 2, &["is not UTF-8"]);
        assert!(!line.contains(SECRET), "{line}");
    }
    assert_eq!(folder.names(), ["password"]);
}

#[test]
fn a_file_that_gives_no_password_is_told_with_exit_code_1() {
    let folder = Folder::new();
    let temp = folder.temp.path();
    for (name, content) in
        [("empty", &b""[..]), ("empty-line", b"\nsecret"), ("raw", b"secret\xff\n")]
    {
        fs::write(temp.join(name), content).unwrap();
    }
    let flag = "--store-password-file";
    for (file, problem) in [
        (temp.join("missing"), "No such file"),
        (temp.to_owned(), "directory"),
        (temp.join("empty"), "first line is empty"),
        (temp.join("empty-line"), "first line is empty"),
        (temp.join("raw"), "not UTF-8"),
        ("/dev/zero".into(), "more than 1024 bytes"),
    ] {
        let file = file.to_str().unwrap();
        let parts = [flag, file, problem, "give a file whose first line is the password"];
        let line = fails(folder.command(&[flag, file]), 1, &parts);
        assert!(!line.contains("secret"), "{line}");
    }
    assert!(!folder.path.exists());
}

#[test]
fn the_help_tells_every_flag_every_file_and_what_certificates_are_for() {
    let help = succeeded(&run(onbytes(&["certs", "--help"])));
    let headings = ["Files without --ca:", "Files with --ca:", "Examples:", "Exit status:"];
    let flags = ["--out", "--host", "--ca", "--days", "--key-type", "--force"];
    let words =
        ["--store-password ", "--store-password-file", VARIABLE, "changeit", "[default: 365]"];
    let promises =
        ["for trying", "for tests", "private networks", "do not replace those of a public"];
    for parts in [&headings[..], &flags, &words, &promises, &ALONE, &WITH_CA] {
        assert_parts(&help, parts);
    }
}
