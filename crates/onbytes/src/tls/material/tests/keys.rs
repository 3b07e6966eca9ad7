//! Certificate files and key files.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;

/// Certificate and key, in PEM, of a root, an issuer below it, and a leaf below that.
pub(super) fn chain_of_three() -> [(String, String); 3] {
    let params = |name: &str, is_ca: bool| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    };
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let [root, issuer, leaf] =
        [params("root", true), params("issuer", true), params("leaf", false)];
    let pems = [
        root.clone().self_signed(&keys[0]).unwrap().pem(),
        issuer.clone().signed_by(&keys[1], &Issuer::from_params(&root, &keys[0])).unwrap().pem(),
        leaf.signed_by(&keys[2], &Issuer::from_params(&issuer, &keys[1])).unwrap().pem(),
    ];
    let mut pems = pems.into_iter();
    keys.map(|key| (pems.next().unwrap(), key.serialize_pem()))
}

/// Makes a key of openssl's kinds, `k.pem`, and a certificate for it, `c.pem`.
fn make(dir: &Dir, kind: &str) {
    dir.run(&format!("openssl genpkey -out k.pem -algorithm {kind}"));
    dir.run("openssl req -x509 -new -key k.pem -subj /CN=a -days 9 -out c.pem");
}

#[test]
fn every_kind_of_key_is_read_in_every_form() {
    if skipped(&["openssl"]) {
        return;
    }
    let kinds = [
        ("RSA", &["rsa -traditional"][..]),
        ("EC -pkeyopt ec_paramgen_curve:P-256", &["ec"]),
        ("EC -pkeyopt ec_paramgen_curve:P-384", &["ec"]),
        ("EC -pkeyopt ec_paramgen_curve:P-521", &["ec"]),
        ("ED25519", &[]),
    ];
    for (kind, traditional) in kinds {
        if kind.ends_with("P-521") && !cfg!(feature = "tls") {
            continue;
        }
        let dir = Dir::new();
        make(&dir, kind);
        assert_eq!(dir.usable(dir.cert_key("c.pem", "k.pem")), [""; 0], "{kind}");
        dir.run("openssl pkey -in k.pem -outform DER -out k.der");
        dir.run("openssl x509 -in c.pem -outform DER -out c.der");
        assert_eq!(dir.usable(dir.cert_key("c.der", "k.der")), [""; 0], "{kind}");
        for command in traditional {
            dir.run(&format!("openssl {command} -in k.pem -out t.pem"));
            dir.run(&format!("openssl {command} -in k.pem -outform DER -out t.der"));
            assert_eq!(dir.usable(dir.cert_key("c.pem", "t.pem")), [""; 0], "{kind}");
            assert_eq!(dir.usable(dir.cert_key("c.pem", "t.der")), [""; 0], "{kind}");
        }
    }
}

#[test]
fn parameters_before_a_key_and_a_key_beside_its_certificate_are_fine() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    dir.run("openssl ecparam -name prime256v1 -genkey -out k.pem");
    assert!(String::from_utf8(dir.read("k.pem")).unwrap().contains("EC PARAMETERS"));
    dir.run("openssl req -x509 -new -key k.pem -subj /CN=a -days 9 -out c.pem");
    assert_eq!(dir.usable(dir.cert_key("c.pem", "k.pem")), [""; 0]);
    let both = [dir.read("k.pem"), b"text\n".to_vec(), dir.read("c.pem")].concat();
    dir.write("both.pem", both);
    assert_eq!(dir.usable(dir.cert_key("both.pem", "both.pem")), [""; 0]);
    dir.run("openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:x -out s.p12");
    dir.run("openssl pkcs12 -in s.p12 -passin pass:x -noenc -out bags.pem");
    assert!(String::from_utf8(dir.read("bags.pem")).unwrap().contains("Bag Attributes"));
    assert_eq!(dir.usable(dir.cert_key("bags.pem", "bags.pem")), [""; 0]);
    dir.run("openssl x509 -in c.pem -trustout -addtrust serverAuth -out trusted.pem");
    assert_eq!(dir.usable(dir.cert_key("trusted.pem", "k.pem")), [""; 0]);
}

#[test]
fn encrypted_keys_are_opened_with_their_password() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    make(&dir, "EC -pkeyopt ec_paramgen_curve:P-256");
    let ways = [
        "",
        "-v2 aes-128-cbc",
        "-v2 aes-192-cbc",
        "-v2 aes-256-cbc -v2prf hmacWithSHA1",
        "-v2 aes-256-cbc -v2prf hmacWithSHA384",
        "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        "-v2 des3",
        "-scrypt -scrypt_N 1024 -scrypt_r 8 -scrypt_p 1",
        "-v1 PBE-SHA1-3DES",
        "-v1 PBE-SHA1-2DES",
        "-v1 PBE-SHA1-RC2-40 -provider legacy -provider default",
        "-v1 PBE-SHA1-RC2-128 -provider legacy -provider default",
        "-outform DER",
        "-outform DER -v1 PBE-SHA1-3DES",
    ];
    let key = |password: &str| dir.cert_key("c.pem", "e").key_password(password);
    for way in ways {
        dir.run(&format!("openssl pkcs8 -topk8 -in k.pem -out e -passout pass:gehéim {way}"));
        assert_eq!(dir.usable(key("gehéim")), [""; 0], "{way}");
        assert_eq!(
            dir.refusal(key("falsch")),
            "wrong key_password for key_file \"e\", or the file is damaged",
            "{way}"
        );
        assert_eq!(
            dir.refusal(dir.cert_key("c.pem", "e")),
            "key_file \"e\" is encrypted; give key_password",
            "{way}"
        );
    }
    let plain = dir.cert_key("c.pem", "k.pem").key_password("not needed");
    assert_eq!(dir.usable(plain), [""; 0]);
}

#[test]
fn a_wrong_password_is_told_as_such_even_where_its_padding_looks_right() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    make(&dir, "EC -pkeyopt ec_paramgen_curve:P-256");
    dir.run("openssl pkcs8 -topk8 -in k.pem -out e -passout pass:right -iter 1 -v1 PBE-SHA1-3DES");
    dir.run(
        "openssl pkcs12 -export -in c.pem -inkey k.pem -out s.p12 -passout pass:right -iter 1 -nomac \
         -keypbe PBE-SHA1-3DES -certpbe NONE",
    );
    for number in 0..1000 {
        let wrong = format!("wrong{number}");
        assert_eq!(
            dir.refusal(dir.cert_key("c.pem", "e").key_password(wrong.clone())),
            "wrong key_password for key_file \"e\", or the file is damaged"
        );
        assert_eq!(
            dir.refusal(dir.store("s.p12", &wrong)),
            "failed to initialize the TLS context: key store \"s.p12\": wrong password, or the file \
             is damaged"
        );
    }
}

#[test]
fn old_encryption_is_refused_with_the_way_out() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    make(&dir, "RSA");
    let refused = |how: &str| {
        format!(
            "key_file \"e\" is encrypted with {how}, which is not supported; convert it with \
             openssl pkcs8 -topk8 -v2 aes-256-cbc"
        )
    };
    dir.run("openssl rsa -in k.pem -traditional -aes128 -passout pass:x -out e");
    let key = dir.cert_key("c.pem", "e").key_password("x");
    assert_eq!(dir.refusal(key.clone()), refused("the traditional encryption of OpenSSL"));
    let old = "-provider legacy -provider default";
    for (form, name) in [
        ("PBE-MD5-DES", "PBES1 with MD5 and DES"),
        ("PBE-SHA1-RC4-128", "RC4"),
        ("PBE-SHA1-DES", "PBES1 with SHA-1 and DES"),
    ] {
        dir.run(&format!("openssl pkcs8 -topk8 -v1 {form} -in k.pem -passout pass:x -out e {old}"));
        assert_eq!(dir.refusal(key.clone()), refused(name));
    }
    dir.run(&format!("openssl pkcs8 -topk8 -v2 des-cbc -in k.pem -passout pass:x -out e {old}"));
    assert_eq!(dir.refusal(key.clone()), refused("DES"));
    dir.run("openssl pkcs8 -topk8 -v2 camellia-256-cbc -in k.pem -passout pass:x -out e");
    assert_eq!(dir.refusal(key), refused("cipher 1.2.392.200011.61.1.1.1.4"));
}

/// A key that is encrypted by PBES2 with AES-256, and with nothing in it.
fn locked(derivation: &[u8], parameters: &[Vec<u8>]) -> Vec<u8> {
    let sequence = |parts: &[Vec<u8>]| element(0x30, parts.concat());
    let derivation = sequence(&[element(6, derivation), sequence(parameters)]);
    let aes = element(6, [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a]);
    let cipher = sequence(&[aes, element(4, [0; 16])]);
    let pbes2 = element(6, [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 0x0d]);
    let algorithm = sequence(&[pbes2, sequence(&[derivation, cipher])]);
    sequence(&[algorithm, element(4, [0; 16])])
}

#[test]
fn work_without_bound_is_refused_before_it_is_done() {
    let dir = Dir::new();
    dir.write("c.pem", to_pem("CERTIFICATE", &self_signed().0));
    let key = dir.cert_key("c.pem", "e").key_password("x");
    let salt = || element(4, [0; 8]);
    let number = |bytes: &[u8]| element(2, bytes);
    let pbkdf2 = |count: &[u8]| {
        locked(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 0x0c], &[salt(), number(count)])
    };
    let scrypt = |cost: &[u8], block: &[u8], lanes: &[u8]| {
        let oid = [0x2b, 6, 1, 4, 1, 0xda, 0x47, 4, 0x0b];
        locked(&oid, &[salt(), number(cost), number(block), number(lanes)])
    };
    let wrong = "wrong key_password for key_file \"e\", or the file is damaged";
    let damaged = "key_file \"e\" is damaged";
    let costly = "key_file \"e\" asks for too much work to be opened: more than 10000000 iterations, \
                  or 1 GiB for scrypt";
    for (file, what) in [
        (pbkdf2(&[1]), wrong),
        (pbkdf2(&[0]), damaged),
        (pbkdf2(&[0x80]), damaged),
        (pbkdf2(&[0, 0x98, 0x96, 0x81]), costly),
        (pbkdf2(&[1, 0, 0, 0, 0, 0]), costly),
        (scrypt(&[16], &[8], &[1]), wrong),
        (scrypt(&[15], &[8], &[1]), damaged),
        (scrypt(&[0], &[8], &[1]), damaged),
        (scrypt(&[16], &[0], &[1]), damaged),
        (scrypt(&[16], &[8], &[0]), damaged),
        (scrypt(&[0x20, 0, 0], &[8], &[1]), costly),
        (scrypt(&[1, 0], &[0x7f, 0xff], &[2]), costly),
        (scrypt(&[16], &[8], &[1, 0, 1]), costly),
        (scrypt(&[0x40, 0, 0, 0, 0, 0, 0, 0], &[8], &[1]), costly),
    ] {
        dir.write("e", &file);
        assert_eq!(dir.refusal(key.clone()), what, "{file:02x?}");
    }
}

#[test]
fn a_vector_of_the_wrong_length_is_told() {
    let dir = Dir::new();
    dir.write("c.pem", to_pem("CERTIFICATE", &self_signed().0));
    let key = locked(
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 0x0c],
        &[element(4, [0; 8]), element(2, [1])],
    );
    // The same length in all, with 3DES in the place of AES, whose vector is shorter.
    let aes = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a, 4, 16];
    let des = [6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7, 4, 17, 0];
    dir.write("e", broken::replaced(&key, &aes, &des));
    assert_eq!(
        dir.refusal(dir.cert_key("c.pem", "e").key_password("x")),
        "key_file \"e\" is damaged"
    );
}

#[cfg(feature = "tls")]
const SUPPORTED: &str = "supported: RSA from 2048 bits, P-256, P-384, P-521, Ed25519";
#[cfg(not(feature = "tls"))]
const SUPPORTED: &str = "supported: RSA from 2048 bits, P-256, P-384, Ed25519";

#[test]
fn keys_that_tls_cannot_use_are_named() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    let cases = [
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", "secp256k1 keys"),
        ("EC -pkeyopt ec_paramgen_curve:P-224", "P-224 keys"),
        ("EC -pkeyopt ec_paramgen_curve:brainpoolP256r1", "Brainpool keys"),
        (
            "EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "elliptic curve keys with explicit parameters",
        ),
        ("ED448", "Ed448 keys"),
        ("RSA-PSS", "RSASSA-PSS keys"),
    ];
    for (kind, name) in cases {
        make(&dir, kind);
        let expected = format!("key_file \"k.pem\": {name} are not supported; {SUPPORTED}");
        assert_eq!(dir.refusal(dir.cert_key("c.pem", "k.pem")), expected);
    }
    let dsa = format!("key_file \"d.pem\": DSA keys are not supported; {SUPPORTED}");
    dir.run("openssl dsaparam -out d.pem -genkey 1024");
    assert_eq!(dir.refusal(dir.cert_key("c.pem", "d.pem")), dsa);
    dir.run("openssl pkcs8 -topk8 -nocrypt -in d.pem -out d8.pem");
    std::fs::rename(dir.path("d8.pem"), dir.path("d.pem")).unwrap();
    assert_eq!(dir.refusal(dir.cert_key("c.pem", "d.pem")), dsa);
    dir.run("openssl ecparam -name secp256k1 -genkey -noout -out k.pem");
    assert!(dir.refusal(dir.cert_key("c.pem", "k.pem")).contains("secp256k1 keys are not"));
}

#[test]
fn a_short_rsa_key_is_refused_wherever_it_is() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    make(&dir, "RSA -pkeyopt rsa_keygen_bits:1024");
    let short = "RSA key of 1024 bits is too short; 2048 at least";
    assert_eq!(dir.refusal(dir.cert_key("c.pem", "k.pem")), format!("key_file \"k.pem\": {short}"));
    dir.run("openssl rsa -in k.pem -traditional -out t.pem");
    assert_eq!(dir.refusal(dir.cert_key("c.pem", "t.pem")), format!("key_file \"t.pem\": {short}"));
    dir.run("openssl genpkey -algorithm RSA -out long.pem");
    assert_eq!(
        dir.refusal(dir.cert_key("c.pem", "long.pem")),
        format!("cert_file \"c.pem\": {short}")
    );
    dir.run("openssl pkcs12 -export -in c.pem -inkey k.pem -name a -passout pass:x -out s.p12");
    assert_eq!(
        dir.refusal(dir.store("s.p12", "x")),
        format!(
            "failed to initialize the TLS context: key store \"s.p12\": key entry 'a': {short}"
        )
    );
}

#[test]
fn old_and_odd_certificates_of_our_own_serve_as_well() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    dir.run("openssl genpkey -algorithm ED25519 -out k.pem");
    dir.run("openssl req -new -key k.pem -subj /CN=a -out r.pem");
    dir.run("openssl x509 -req -in r.pem -signkey k.pem -days 9 -out c.pem");
    dir.run("openssl x509 -in c.pem -noout -text -out t");
    assert!(String::from_utf8(dir.read("t")).unwrap().contains("Version: 1"));
    let identity = read_key(&dir.cert_key("c.pem", "k.pem").into()).unwrap();
    assert_eq!(identity.warnings, [""; 0]);
    dir.run(
        "openssl req -x509 -new -key k.pem -subj /CN=a -days 9 -addext 1.2.3.4=critical,DER:0500 \
         -out c.pem",
    );
    let identity = read_key(&dir.cert_key("c.pem", "k.pem").into()).unwrap();
    assert_eq!(identity.warnings, [""; 0]);
}

#[test]
fn dates_are_worth_a_warning_and_no_more() {
    let dir = Dir::new();
    let key = KeyPair::generate().unwrap();
    dir.write("k.pem", key.serialize_pem());
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 5, 6);
    params.not_after = rcgen::date_time_ymd(2021, 5, 6);
    dir.write("x.pem", params.clone().self_signed(&key).unwrap().pem());
    assert_eq!(
        dir.usable(dir.cert_key("x.pem", "k.pem")),
        ["certificate of cert_file \"x.pem\" expired on 2021-05-06"]
    );
    params.not_before = rcgen::date_time_ymd(3020, 5, 6);
    params.not_after = rcgen::date_time_ymd(3021, 5, 6);
    dir.write("x.pem", params.self_signed(&key).unwrap().pem());
    assert_eq!(
        dir.usable(dir.cert_key("x.pem", "k.pem")),
        ["certificate of cert_file \"x.pem\" is not valid before 3020-05-06"]
    );
}

#[test]
fn a_chain_is_put_in_order_and_strangers_are_left_out() {
    let dir = Dir::new();
    let [root, issuer, leaf] = chain_of_three();
    dir.write("k.pem", leaf.1);
    let stranger = to_pem("CERTIFICATE", &self_signed().0);
    for (order, warnings) in [
        (vec![&leaf.0, &issuer.0, &root.0], vec![]),
        (vec![&root.0, &leaf.0, &issuer.0, &leaf.0], vec![]),
        (
            vec![&issuer.0, &stranger, &root.0, &leaf.0],
            vec![
                "cert_file \"c.pem\" holds certificates that are not of the key's chain; left out: 1",
            ],
        ),
    ] {
        dir.write("c.pem", order.into_iter().map(String::as_str).collect::<String>());
        let identity = usable(&dir.cert_key("c.pem", "k.pem").into());
        let subjects: Vec<_> = identity.certified.cert.iter().map(chain::subject).collect();
        assert_eq!(subjects, ["CN=leaf", "CN=issuer", "CN=root"]);
        let told: Vec<_> = identity.warnings.iter().map(|warning| dir.local(warning)).collect();
        assert_eq!(told, warnings);
    }
}
