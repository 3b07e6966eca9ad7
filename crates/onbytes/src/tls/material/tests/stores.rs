//! Key stores and trust stores of openssl and keytool.

use super::*;

const KEYTOOL: &str = "keytool -storepass password -noprompt";

/// A certificate and key, `c.pem` and `k.pem`, for stores of openssl.
fn pair(dir: &Dir) {
    let (cert, key) = self_signed();
    dir.write("c.pem", to_pem("CERTIFICATE", &cert));
    dir.write("k.pem", to_pem("PRIVATE KEY", &key));
}

fn no_integrity(store: &str) -> Vec<String> {
    vec![format!(
        "key store \"{store}\" has no integrity digest: nothing shows whether it was changed"
    )]
}

#[test]
fn every_kind_of_key_is_read_from_every_kind_of_keytools_stores() {
    if skipped(&["keytool"]) {
        return;
    }
    let dir = Dir::new();
    let kinds = [
        ("rsa", "-keyalg RSA -keysize 2048"),
        ("p256", "-keyalg EC -groupname secp256r1"),
        ("p384", "-keyalg EC -groupname secp384r1"),
        ("ed", "-keyalg Ed25519"),
    ];
    for (alias, kind) in kinds {
        dir.run(&format!(
            "{KEYTOOL} -genkeypair {kind} -alias {alias} -dname CN={alias} -keystore new.p12"
        ));
    }
    let copy = |options: &str| {
        dir.run(&format!(
            "{KEYTOOL} -importkeystore -srckeystore new.p12 -srcstorepass password {options}"
        ));
    };
    copy("-destkeystore old.p12 -J-Dkeystore.pkcs12.legacy");
    copy("-destkeystore s.jks -deststoretype JKS");
    copy(
        "-destkeystore open.p12 -J-Dkeystore.pkcs12.macAlgorithm=NONE \
         -J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE",
    );
    for store in ["new.p12", "old.p12", "s.jks", "open.p12"] {
        for (alias, _) in kinds {
            let wanted = dir.store(store, "password").alias(alias.to_uppercase());
            if alias.starts_with('p') && !cfg!(feature = "tls") {
                let refusal = dir.refusal(wanted);
                assert!(refusal.contains("lacks its public half, which ring needs"), "{refusal}");
                continue;
            }
            let identity = usable(&wanted.into());
            let subject = chain::subject(&identity.certified.cert[0]);
            assert_eq!(subject, format!("CN={alias}"), "{store}");
        }
    }
    assert_eq!(
        dir.usable(dir.store("open.p12", "password").alias("rsa")),
        no_integrity("open.p12")
    );
    assert_eq!(
        dir.refusal(dir.store("new.p12", "password").alias("x")),
        "failed to initialize the TLS context: key store \"new.p12\" has no key entry 'x' \
         (it has: rsa, p256, p384, ed)"
    );
    assert_eq!(
        dir.usable(dir.store("new.p12", "password")),
        ["key store \"new.p12\" has several key entries, of which 'rsa' is used; to choose, give \
          alias (it has: rsa, p256, p384, ed)"]
    );
    for store in ["new.p12", "old.p12", "s.jks"] {
        assert_eq!(
            dir.refusal(dir.store(store, "passwort")),
            format!(
                "failed to initialize the TLS context: key store \"{store}\": wrong password, or \
                 the file is damaged"
            )
        );
    }
    dir.run(&format!("{KEYTOOL} -importkeystore -srckeystore new.p12 -srcstorepass password -destkeystore s.jceks -deststoretype JCEKS -srcalias rsa"));
    assert_eq!(
        dir.refusal(dir.store("s.jceks", "password")),
        "failed to initialize the TLS context: key store \"s.jceks\" is a JCEKS store; convert it \
         with keytool -importkeystore -deststoretype PKCS12"
    );
}

#[test]
fn stores_of_openssl_are_read_however_they_are_protected() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    pair(&dir);
    let protections = [
        ("default", ""),
        ("legacy", "-legacy"),
        ("aes128", "-keypbe aes-128-cbc -certpbe aes-128-cbc -macalg sha512"),
        ("aes192", "-keypbe aes-192-cbc -certpbe aes-192-cbc -macalg sha384"),
        ("3des", "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1"),
        ("2des", "-keypbe PBE-SHA1-2DES -certpbe PBE-SHA1-2DES"),
        (
            "rc2-40",
            "-keypbe PBE-SHA1-RC2-40 -certpbe PBE-SHA1-RC2-40 -provider legacy -provider default",
        ),
        (
            "rc2-128",
            "-keypbe PBE-SHA1-RC2-128 -certpbe PBE-SHA1-RC2-128 -provider legacy -provider default",
        ),
        ("pbes2-3des", "-keypbe des-ede3-cbc -certpbe des-ede3-cbc"),
        ("million", "-iter 1000000"),
        ("nomaciter", "-nomaciter"),
    ];
    for (name, options) in protections {
        dir.run(&format!(
            "openssl pkcs12 -export -in c.pem -inkey k.pem -name srv -passout pass:password -out {name} {options}"
        ));
        assert_eq!(dir.usable(dir.store(name, "password").alias("SRV")), [""; 0], "{name}");
        let refusal = dir.refusal(dir.store(name, "wrong"));
        assert!(refusal.ends_with(": wrong password, or the file is damaged"), "{refusal}");
    }
}

#[test]
fn a_store_without_integrity_is_warned_about() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    pair(&dir);
    let export = "openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:password -nomac";
    dir.run(&format!("{export} -out nomac"));
    dir.run(&format!("{export} -keypbe NONE -certpbe NONE -out open"));
    assert_eq!(dir.usable(dir.store("nomac", "password")), no_integrity("nomac"));
    assert_eq!(dir.usable(dir.store("open", "whatever")), no_integrity("open"));
    let refusal = dir.refusal(dir.store("nomac", "wrong"));
    assert!(refusal.ends_with(": wrong password, or the file is damaged"), "{refusal}");
}

#[test]
fn odd_passwords_and_missing_names_do_not_matter() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    pair(&dir);
    for (name, password) in [("empty", ""), ("accents", "pässwörd€"), ("beyond", "a𝄞b")] {
        dir.run(&format!(
            "openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:{password} -out {name}"
        ));
        assert_eq!(dir.usable(dir.store(name, password)), [""; 0], "{name}");
    }
    assert_eq!(
        dir.refusal(dir.store("accents", "pässwörd€").alias("srv")),
        "failed to initialize the TLS context: key store \"accents\" has no key entry 'srv' (it \
         has: CN=rcgen self signed cert)"
    );
}

#[test]
fn a_chain_comes_in_order_whatever_the_order_of_the_store() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    let [root, issuer, leaf] = keys::chain_of_three();
    dir.write("k.pem", leaf.1);
    dir.write("c.pem", &leaf.0);
    dir.write("others.pem", [root.0, issuer.0].concat());
    dir.run(
        "openssl pkcs12 -export -in c.pem -inkey k.pem -certfile others.pem -passout pass:password \
         -out s.p12",
    );
    let identity = usable(&dir.store("s.p12", "password").into());
    let subjects: Vec<_> = identity.certified.cert.iter().map(chain::subject).collect();
    assert_eq!(subjects, ["CN=leaf", "CN=issuer", "CN=root"]);
}

#[test]
fn trusted_certificates_are_read_from_every_kind_of_store() {
    if skipped(&["keytool", "openssl"]) {
        return;
    }
    let dir = Dir::new();
    let mut all = String::new();
    for name in ["a", "b", "c"] {
        let pem = to_pem("CERTIFICATE", &self_signed().0);
        dir.write(name, &pem);
        all.push_str(&pem);
        dir.run(&format!("{KEYTOOL} -importcert -file {name} -alias {name} -keystore t.p12"));
    }
    dir.write("all.pem", &all);
    dir.run(&format!("{KEYTOOL} -importkeystore -srckeystore t.p12 -srcstorepass password -destkeystore t.jks -deststoretype JKS"));
    dir.run("openssl pkcs12 -export -nokeys -in all.pem -passout pass:password -out openssl.p12");
    for store in ["t.p12", "t.jks", "openssl.p12"] {
        let trusted = read_trust(&dir.trust_store(store, "password")).unwrap();
        assert_eq!((trusted.len(), anchors(&trusted)), (3, 3), "{store}");
        assert_eq!(
            dir.trust_refusal(dir.trust_store(store, "wrong")),
            format!(
                "failed to initialize the TLS context: trust store \"{store}\": wrong password, or \
                 the file is damaged"
            )
        );
        assert_eq!(
            dir.refusal(dir.store(store, "password")),
            format!(
                "failed to initialize the TLS context: key store \"{store}\" holds no private key"
            )
        );
    }
    dir.run(&format!("{KEYTOOL} -importcert -file a -alias a -keystore e.p12"));
    dir.run(&format!("{KEYTOOL} -delete -alias a -keystore e.p12"));
    let empty =
        "failed to initialize the TLS context: trust store \"e.p12\" holds no trusted certificate";
    assert_eq!(dir.trust_refusal(dir.trust_store("e.p12", "password")), empty);
}

#[test]
fn beside_a_key_only_marked_certificates_are_trusted() {
    if skipped(&["keytool"]) {
        return;
    }
    let dir = Dir::new();
    let trusted = self_signed().0;
    dir.write("t.pem", to_pem("CERTIFICATE", &trusted));
    for (store, kind) in [("s.p12", "PKCS12"), ("s.jks", "JKS")] {
        let keytool = format!("{KEYTOOL} -keystore {store} -storetype {kind}");
        dir.run(&format!("{keytool} -genkeypair -keyalg Ed25519 -alias k -dname CN=k"));
        assert_eq!(
            dir.trust_refusal(dir.trust_store(store, "password")),
            format!(
                "failed to initialize the TLS context: trust store \"{store}\" holds no trusted certificate"
            )
        );
        dir.run(&format!("{keytool} -importcert -file t.pem -alias t"));
        let found = read_trust(&dir.trust_store(store, "password")).unwrap();
        assert_eq!(found, [CertificateDer::from(trusted.clone())]);
        assert_eq!(dir.usable(dir.store(store, "password")), [""; 0]);
    }
}

#[test]
fn an_entry_of_jks_may_have_a_password_of_its_own() {
    if skipped(&["keytool"]) {
        return;
    }
    let dir = Dir::new();
    dir.run(
        "keytool -genkeypair -storetype JKS -keystore s.jks -storepass pässwörd -keypass änother \
         -keyalg Ed25519 -alias srv -dname CN=k",
    );
    let store = dir.store("s.jks", "pässwörd");
    let start = "failed to initialize the TLS context: key store \"s.jks\": key entry 'srv':";
    assert_eq!(
        dir.refusal(store.clone()),
        format!("{start} its password differs from the store's; give key_password")
    );
    assert_eq!(
        dir.refusal(store.clone().key_password("third")),
        format!("{start} wrong key_password, or the file is damaged")
    );
    assert_eq!(dir.usable(store.key_password("änother")), [""; 0]);
}

#[test]
fn a_key_password_that_is_not_needed_does_not_matter() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    pair(&dir);
    dir.run("openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:password -out s.p12");
    for key_password in ["password", "other"] {
        let store = dir.store("s.p12", "password").key_password(key_password);
        assert_eq!(dir.usable(store), [""; 0]);
    }
}

#[test]
fn version_1_of_jks_is_read_too() {
    let (cert, _) = self_signed();
    let mut store =
        [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, b'a'].to_vec();
    store.extend([0; 8]);
    store.extend((cert.len() as u32).to_be_bytes());
    store.extend(&cert);
    mutations::sign_jks(&mut store, "password");
    let dir = Dir::new();
    dir.write("t.jks", store);
    let trusted = read_trust(&dir.trust_store("t.jks", "password")).unwrap();
    assert_eq!(trusted, [CertificateDer::from(cert)]);
}

#[test]
fn the_integrity_digest_of_rfc_9879_is_checked() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    pair(&dir);
    dir.run("openssl pkcs12 -export -in c.pem -inkey k.pem -passout pass:password -nomac -out s");
    let store = dir.read("s");
    let mut pfx = der::Der::only_sequence(&store).unwrap();
    pfx.number().unwrap();
    let safes = pfx.element().unwrap();
    let mut info = der::Der::new(safes.content);
    info.oid().unwrap();
    dir.write("safes", info.inner(der::context(0)).unwrap().octets().unwrap());
    for (digest, number, length) in [("sha256", 9, 32), ("sha384", 10, 48), ("sha512", 11, 64)] {
        dir.run(&format!(
            "openssl kdf -binary -keylen {length} -kdfopt digest:{digest} -kdfopt pass:password \
             -kdfopt salt:saltsalt -kdfopt iter:2048 -out key PBKDF2"
        ));
        let key: String = dir.read("key").iter().map(|byte| format!("{byte:02x}")).collect();
        dir.run(&format!(
            "openssl dgst -{digest} -mac HMAC -macopt hexkey:{key} -binary -out mac safes"
        ));
        let mac = pbmac1(number, length, &dir.read("mac"));
        dir.write("p.p12", element(0x30, [&[2, 1, 3], safes.whole, &mac].concat()));
        assert_eq!(dir.usable(dir.store("p.p12", "password")), [""; 0], "{digest}");
        let refusal = dir.refusal(dir.store("p.p12", "wrong"));
        assert!(refusal.ends_with(": wrong password, or the file is damaged"), "{refusal}");
    }
}

/// `MacData` with PBMAC1: PBKDF2 over 2048 iterations, and HMAC, both with the same digest.
fn pbmac1(digest: u8, key_length: u8, mac: &[u8]) -> Vec<u8> {
    let sequence = |parts: &[Vec<u8>]| element(0x30, parts.concat());
    let oid = |last: [u8; 2]| element(6, [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, last[0], last[1]]);
    let hmac = sequence(&[element(6, [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, digest]), vec![5, 0]]);
    let (salt, iterations) = (element(4, b"saltsalt"), element(2, [8, 0]));
    let pbkdf2 = sequence(&[salt, iterations, element(2, [key_length]), hmac.clone()]);
    let derivation = sequence(&[oid([5, 0x0c]), pbkdf2]);
    let algorithm = sequence(&[oid([5, 0x0e]), sequence(&[derivation, hmac])]);
    let digest_info = sequence(&[algorithm, element(4, mac)]);
    // The salt and the iterations of the older digest are not used.
    sequence(&[digest_info, element(4, b"not used"), element(2, [1])])
}
