//! Broken and misplaced files, each with the exact sentence about it.

use super::*;

/// `data` with the only occurrence of some bytes replaced.
pub(super) fn replaced(data: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<_> = data.windows(from.len()).enumerate().filter(|(_, w)| *w == from).collect();
    assert_eq!(places.len(), 1);
    let at = places[0].0;
    [&data[..at], to, &data[at + from.len()..]].concat()
}

/// A directory with a good pair, `c.pem` and `k.pem`, also as `c.der` and `k.der`.
fn with_pair() -> Dir {
    let dir = Dir::new();
    let (cert, key) = self_signed();
    dir.write("c.pem", to_pem("CERTIFICATE", &cert));
    dir.write("k.pem", to_pem("PRIVATE KEY", &key));
    dir.write("c.der", &cert);
    dir.write("k.der", &key);
    dir
}

#[test]
fn files_that_are_no_files_are_told_apart() {
    let dir = with_pair();
    std::fs::create_dir(dir.path("folder")).unwrap();
    dir.write("empty", "");
    let huge = std::fs::File::create(dir.path("huge")).unwrap();
    huge.set_len(17 * 1024 * 1024).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path("pipe"), 0o600.into()).unwrap();
    for (file, what) in [
        ("missing", "does not exist"),
        ("folder", "is a directory, not a file"),
        ("empty", "is empty"),
        ("huge", "is larger than 16 MiB, which no such file is"),
        ("pipe", "is not a regular file"),
    ] {
        let expected = format!("cert_file \"{file}\" {what}");
        assert_eq!(dir.refusal(dir.cert_key(file, "k.pem")), expected);
        let expected = format!("key_file \"{file}\" {what}");
        assert_eq!(dir.refusal(dir.cert_key("c.pem", file)), expected);
        let expected = format!("cert \"{file}\" {what}");
        assert_eq!(dir.trust_refusal(dir.path(file)), expected);
        let expected = format!("failed to initialize the TLS context: key store \"{file}\" {what}");
        assert_eq!(dir.refusal(dir.store(file, "x")), expected);
        let expected =
            format!("failed to initialize the TLS context: trust store \"{file}\" {what}");
        assert_eq!(dir.trust_refusal(dir.trust_store(file, "x")), expected);
        let expected = format!("ocsp_file \"{file}\" {what}");
        let key = dir.cert_key("c.pem", "k.pem").ocsp_file(dir.path(file));
        assert_eq!(dir.refusal(key), expected);
        let expected = format!("crl_files \"{file}\" {what}");
        assert_eq!(dir.local(&read_crls(&[dir.path(file)]).unwrap_err()), expected);
    }
    let error = read_trust(&"/dev/zero".into()).unwrap_err().to_string();
    assert_eq!(error, "cert \"/dev/zero\" is not a regular file");
}

#[test]
fn a_path_cannot_break_a_line() {
    let error = read_trust(&"no\nsuch\u{1b}[31m".into()).unwrap_err().to_string();
    assert_eq!(error, "cert \"no\\nsuch\\u{1b}[31m\" does not exist");
}

#[test]
fn files_in_the_place_of_others_are_recognised() {
    let dir = with_pair();
    let (cert, key) = (dir.read("c.der"), dir.read("k.der"));
    dir.write("request.pem", to_pem("CERTIFICATE REQUEST", &cert));
    dir.write("public.pem", to_pem("PUBLIC KEY", &cert));
    dir.write("other.pem", to_pem("OTHER\u{7}", &cert));
    dir.write("two.pem", to_pem("PRIVATE KEY", &key).repeat(2));
    dir.write("ssh.pem", to_pem("OPENSSH PRIVATE KEY", &key));
    dir.write("text", "hello\n");
    dir.write("sequence", [0x30, 3, 2, 1, 0]);
    dir.write("s.jks", [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0]);
    dir.write("s.jceks", [0xce, 0xce, 0xce, 0xce, 0, 0, 0, 2, 0, 0, 0, 0]);
    dir.write("s.p12", [0x30, 0x82, 9, 9, 2, 1, 3, 0x30]);
    dir.write("ber.p12", [0x30, 0x80, 2, 1, 3, 0x30]);
    dir.write("s.bks", [0, 0, 0, 2, 0, 0, 0, 20]);
    for (file, what) in [
        ("k.pem", "holds no certificate, but a private key"),
        ("k.der", "holds no certificate, but a private key"),
        ("request.pem", "holds no certificate, but a certificate request"),
        ("public.pem", "holds no certificate, but a public key"),
        ("other.pem", "holds no certificate, but a OTHER\\u{7} block"),
        ("text", "holds no certificate: it is neither PEM nor DER"),
        ("sequence", "holds no certificate, or a damaged one"),
    ] {
        let expected = format!("cert_file \"{file}\" {what}");
        assert_eq!(dir.refusal(dir.cert_key(file, "k.pem")), expected);
        assert_eq!(dir.trust_refusal(dir.path(file)), format!("cert \"{file}\" {what}"));
    }
    for (file, what) in [
        ("c.pem", " holds no private key, but a certificate"),
        ("c.der", " holds no private key, but a certificate"),
        ("request.pem", " holds no private key, but a certificate request"),
        ("two.pem", " holds 2 private keys; leave one"),
        ("ssh.pem", " is a key of OpenSSH; convert a copy with ssh-keygen -p -m PKCS8 -f"),
        ("text", " holds no private key: it is neither PEM nor DER"),
        ("sequence", ": the private key is damaged, or of an unknown form"),
    ] {
        let expected = format!("key_file \"{file}\"{what}");
        assert_eq!(dir.refusal(dir.cert_key("c.pem", file)), expected);
    }
    for (file, kind) in
        [("s.jks", "JKS"), ("s.jceks", "JCEKS"), ("s.p12", "PKCS#12"), ("ber.p12", "PKCS#12")]
    {
        let what = format!("\"{file}\" is a {kind} store; give it as a");
        let way = "with path and password";
        let expected = format!("cert_file {what} key store, {way}");
        assert_eq!(dir.refusal(dir.cert_key(file, "k.pem")), expected);
        let expected = format!("key_file {what} key store, {way}");
        assert_eq!(dir.refusal(dir.cert_key("c.pem", file)), expected);
        assert_eq!(dir.trust_refusal(dir.path(file)), format!("cert {what} trust store, {way}"));
    }
    for (file, what) in [
        ("c.pem", " is a PEM file; use cert_file and key_file"),
        ("c.der", " is neither PKCS#12 nor JKS"),
        ("s.bks", " is neither PKCS#12 nor JKS"),
        ("text", " is neither PKCS#12 nor JKS"),
        (
            "s.jceks",
            " is a JCEKS store; convert it with keytool -importkeystore -deststoretype PKCS12",
        ),
        (
            "ber.p12",
            " is a PKCS#12 store in BER rather than DER; convert it with openssl pkcs12 to PEM and \
             back with openssl pkcs12 -export",
        ),
        ("s.p12", " is damaged"),
        ("s.jks", " is damaged"),
    ] {
        let expected = format!("failed to initialize the TLS context: key store \"{file}\"{what}");
        assert_eq!(dir.refusal(dir.store(file, "x")), expected);
    }
    assert_eq!(
        dir.trust_refusal(dir.trust_store("c.pem", "x")),
        "failed to initialize the TLS context: trust store \"c.pem\" is a PEM file; give its path \
         as cert"
    );
}

#[test]
fn damage_is_told() {
    let dir = with_pair();
    let pem = String::from_utf8(dir.read("c.pem")).unwrap();
    dir.write("endless.pem", pem.split("-----END").next().unwrap());
    dir.write("digit.pem", pem.replacen('M', "*", 1));
    dir.write("short.pem", to_pem("CERTIFICATE", &dir.read("c.der")[..99]));
    dir.write("second.pem", [pem.clone(), to_pem("CERTIFICATE", b"1234")].concat());
    for (file, what) in [
        ("endless.pem", "the end of its CERTIFICATE block is missing"),
        ("digit.pem", "its CERTIFICATE block is damaged"),
        ("short.pem", "certificate 1 is damaged"),
        ("second.pem", "certificate 2 is damaged"),
    ] {
        let expected = format!("cert_file \"{file}\": {what}");
        assert_eq!(dir.refusal(dir.cert_key(file, "k.pem")), expected);
    }
    dir.write("endless.pem", to_pem("PRIVATE KEY", &dir.read("k.der")).replace("-----END", "---"));
    dir.write("short.pem", to_pem("PRIVATE KEY", &dir.read("k.der")[..99]));
    for (file, what) in [
        ("endless.pem", "the end of its PRIVATE KEY block is missing"),
        ("short.pem", "the private key is damaged, or of an unknown form"),
    ] {
        let expected = format!("key_file \"{file}\": {what}");
        assert_eq!(dir.refusal(dir.cert_key("c.pem", file)), expected);
    }
    let mut key = dir.read("k.der");
    let last = key.len() - 1;
    key[last] ^= 1;
    dir.write("bit.der", key);
    assert_eq!(
        dir.refusal(dir.cert_key("c.pem", "bit.der")),
        "key_file \"bit.der\": the private key is damaged, or of an unknown form"
    );
}

#[test]
fn a_certificate_and_a_key_that_do_not_match_are_told() {
    let dir = with_pair();
    dir.write("other.der", self_signed().1);
    assert_eq!(
        dir.refusal(dir.cert_key("c.pem", "other.der")),
        "cert_file \"c.pem\" and key_file \"other.der\" do not belong together"
    );
}

#[test]
fn a_store_without_the_certificate_of_its_key_is_told() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = with_pair();
    dir.run("openssl pkcs12 -export -nocerts -inkey k.pem -name srv -passout pass:x -out s.p12");
    assert_eq!(
        dir.refusal(dir.store("s.p12", "x")),
        "failed to initialize the TLS context: key store \"s.p12\": key entry 'srv': the store has \
         no certificate for this key"
    );
}

#[test]
fn a_store_that_was_cut_or_changed_is_told() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = with_pair();
    dir.run("openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:x -out s.p12");
    let store = dir.read("s.p12");
    let start = "failed to initialize the TLS context: key store \"b.p12\"";
    dir.write("b.p12", &store[..store.len() / 2]);
    assert_eq!(dir.refusal(dir.store("b.p12", "x")), format!("{start} is damaged"));
    let mut changed = store.clone();
    changed[store.len() / 2] ^= 1;
    dir.write("b.p12", changed);
    assert_eq!(
        dir.refusal(dir.store("b.p12", "x")),
        format!("{start}: wrong password, or the file is damaged")
    );
}

/// A store with a digest that asks for so many iterations.
fn with_iterations(count: &[u8]) -> Vec<u8> {
    let data = element(6, [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);
    let safes = element(0x30, [data, element(0xa0, element(4, element(0x30, [])))].concat());
    let algorithm = element(0x30, [6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0]);
    let digest = element(0x30, [algorithm, element(4, [0; 20])].concat());
    let mac = element(0x30, [digest, element(4, [0; 8]), element(2, count)].concat());
    element(0x30, [vec![2, 1, 3], safes, mac].concat())
}

#[test]
fn a_store_cannot_ask_for_work_without_bound() {
    let dir = Dir::new();
    let start = "failed to initialize the TLS context: key store \"s.p12\"";
    for (count, what) in [
        (&[1][..], ": wrong password, or the file is damaged"),
        (&[0], " is damaged"),
        (&[0xff], " is damaged"),
        (
            &[0x7f, 0xff, 0xff, 0xff],
            " asks for too much work to be opened: more than 10000000 iterations, or 1 GiB for scrypt",
        ),
        (
            &[1, 0, 0, 0, 1],
            " asks for too much work to be opened: more than 10000000 iterations, or 1 GiB for scrypt",
        ),
    ] {
        dir.write("s.p12", with_iterations(count));
        assert_eq!(dir.refusal(dir.store("s.p12", "x")), format!("{start}{what}"), "{count:?}");
    }
}

#[test]
fn no_secret_is_in_any_message() {
    let dir = with_pair();
    dir.write("s.jks", [&[0xfe, 0xed, 0xfe, 0xed][..], &[0; 40]].concat());
    let error = read_key(&dir.store("s.jks", "sesame").key_password("sesame").into());
    let error = error.err().unwrap();
    assert!(!format!("{error} {error:?}").contains("sesame"));
}
