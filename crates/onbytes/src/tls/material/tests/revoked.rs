//! Lists of revoked certificates, and OCSP responses.

use super::*;

/// An authority that has revoked a certificate: `ca.pem`, `ca.key`, the good `c.pem` and `k.pem`, the
/// revoked `r.pem`, the list `crl.pem`, and what its OCSP responder says of both: `ocsp.der` and
/// `revoked.der`.
pub(super) fn authority(dir: &Dir) {
    dir.write(
        "ca.cnf",
        "[ca]\ndefault_ca=a\n[a]\ndatabase=index\ncrlnumber=number\nserial=serial\nnew_certs_dir=.\n\
         default_md=sha256\ndefault_days=9\ndefault_crl_days=9\npolicy=p\ncrl_extensions=e\n\
         [e]\nauthorityKeyIdentifier=keyid\n[p]\ncommonName=supplied\n",
    );
    dir.write("index", "");
    dir.write("number", "01");
    dir.write("serial", "01");
    let p256 = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc";
    dir.run(&format!("openssl req -x509 {p256} -keyout ca.key -subj /CN=ca -days 9 -out ca.pem"));
    let ca = "openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key";
    for (name, key) in [("c", "k"), ("r", "q")] {
        dir.run(&format!(
            "openssl req -new {p256} -keyout {key}.pem -subj /CN={name} -out req.pem"
        ));
        dir.run(&format!("{ca} -notext -in req.pem -out {name}.pem"));
    }
    dir.run(&format!("{ca} -revoke r.pem"));
    dir.run(&format!("{ca} -gencrl -out crl.pem"));
    respond(dir, "c.pem", "-ndays 9 -respout ocsp.der");
    respond(dir, "r.pem", "-ndays 9 -respout revoked.der");
}

fn respond(dir: &Dir, cert: &str, options: &str) {
    dir.run(&format!(
        "openssl ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -issuer ca.pem \
         -cert {cert} {options}"
    ));
}

#[test]
fn lists_are_read_from_pem_and_der_and_nothing_else_is_one() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    authority(&dir);
    dir.run("openssl crl -in crl.pem -outform DER -out crl.der");
    dir.write("two.pem", dir.read("crl.pem").repeat(2));
    let paths = ["crl.pem", "crl.der", "two.pem"].map(|name| dir.path(name));
    assert_eq!(read_crls(&paths).unwrap(), vec![dir.read("crl.der").into(); 4]);
    assert_eq!(read_crls(&[]).unwrap(), []);
    dir.write("text", "hello");
    dir.write("short.der", &dir.read("crl.der")[..40]);
    let mut changed = dir.read("crl.der");
    changed[5] ^= 0x20;
    dir.write("changed.der", changed);
    let config = String::from_utf8(dir.read("ca.cnf")).unwrap();
    dir.write("ca.cnf", config.replace("crl_extensions=e\n", "").replace("crlnumber=number\n", ""));
    dir.run("openssl ca -config ca.cnf -cert ca.pem -keyfile ca.key -gencrl -out v1.pem");
    for (name, what) in [
        ("c.pem", " holds no list of revoked certificates, but a certificate"),
        ("text", " holds no list of revoked certificates: it is neither PEM nor DER"),
        ("short.der", " holds no list of revoked certificates: it is neither PEM nor DER"),
        (
            "v1.pem",
            ": the list is of version 1; make one of version 2, with crl_extensions in openssl's \
             configuration",
        ),
        ("changed.der", ": the list is damaged, or of a kind that is not supported"),
    ] {
        let error = read_crls(&[dir.path(name)]).unwrap_err();
        assert_eq!(dir.local(&error), format!("crl_files \"{name}\"{what}"));
    }
}

#[test]
fn an_ocsp_response_is_shown_along_and_its_age_is_told() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    authority(&dir);
    let key = |file: &str| dir.cert_key("c.pem", "k.pem").ocsp_file(dir.path(file));
    let identity = usable(&key("ocsp.der").into());
    assert_eq!(identity.certified.ocsp, Some(dir.read("ocsp.der")));
    assert_eq!(identity.warnings, [""; 0]);
    assert_eq!(
        dir.usable(key("revoked.der")),
        ["ocsp_file \"revoked.der\" says that the certificate is revoked"]
    );
    let response = dir.read("ocsp.der");
    let times: Vec<_> = (0..response.len() - 16)
        .filter(|at| {
            response[*at..].starts_with(&[0x18, 0x0f]) && response[at + 2..].starts_with(b"20")
        })
        .collect();
    let last = times.last().unwrap() + 2;
    let mut old = response.clone();
    old[last..last + 8].copy_from_slice(b"20210506");
    dir.write("old.der", old);
    assert_eq!(
        dir.usable(key("old.der")),
        ["ocsp_file \"old.der\" has been out of date since 2021-05-06"]
    );
    dir.write("refusal.der", [0x30, 3, 0x0a, 1, 6]);
    dir.write("short.der", &response[..99]);
    dir.write("empty.der", [0x30, 3, 0x0a, 1, 0]);
    for (file, what) in [
        ("c.pem", "is a PEM file; an OCSP response is given in DER"),
        ("refusal.der", "holds the refusal of an OCSP responder, not its response"),
        ("short.der", "holds no OCSP response"),
        ("empty.der", "holds an OCSP response that is damaged"),
    ] {
        assert_eq!(dir.refusal(key(file)), format!("ocsp_file \"{file}\" {what}"));
    }
}
