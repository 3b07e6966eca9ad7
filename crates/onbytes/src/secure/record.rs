//! How the records of secure connections are written in files, where that is not what derives.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{CertKey, CipherSuite, Key, KeyStore, Password, TlsVersion, Trust, TrustStore};

/// Names that are read with `FromStr` and written with `Display`.
macro_rules! by_name {
    ($($type:ty: $expected:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Named { expected: $expected, name: PhantomData })
            }
        }
    )*};
}

by_name! {
    TlsVersion: "the name of a TLS version";
    CipherSuite: "the name of a cipher suite";
}

struct Named<T> {
    expected: &'static str,
    name: PhantomData<T>,
}

impl<T: FromStr<Err = crate::Error>> Visitor<'_> for Named<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<T, E> {
        name.parse().map_err(E::custom)
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.reveal())
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Secret;

        impl Visitor<'_> for Secret {
            type Value = Password;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a password as text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Password, E> {
                Ok(text.into())
            }

            // A number that was meant as a password must not show in a message.
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Password, E> {
                Err(E::custom("a password is text; put it in quotes"))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Password, E> {
                self.visit_u64(0)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Password, E> {
                self.visit_u64(0)
            }
        }

        from.deserialize_any(Secret)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::KeyStore(store) => store.serialize(to),
            Self::CertKey(files) => files.serialize(to),
        }
    }
}

/// The fields of both kinds of key, so that a misspelt one is told by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyFields {
    path: Option<PathBuf>,
    password: Option<Password>,
    alias: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    key_password: Option<Password>,
    ocsp_file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const EITHER: &str =
            "a key is a key store (path, password) or two files (certFile, keyFile), not both";
        let fields = KeyFields::deserialize(from)?;
        let is_store = fields.path.is_some() || fields.password.is_some() || fields.alias.is_some();
        let is_files = fields.cert_file.is_some() || fields.key_file.is_some();
        if is_store == is_files {
            return Err(de::Error::custom(EITHER));
        }
        if is_store {
            let path = fields.path.ok_or_else(|| de::Error::missing_field("path"))?;
            let password = fields.password.ok_or_else(|| de::Error::missing_field("password"))?;
            let store = KeyStore {
                alias: fields.alias,
                key_password: fields.key_password,
                ocsp_file: fields.ocsp_file,
                ..KeyStore::new(path, password)
            };
            return Ok(Self::KeyStore(store));
        }
        let cert_file = fields.cert_file.ok_or_else(|| de::Error::missing_field("certFile"))?;
        let key_file = fields.key_file.ok_or_else(|| de::Error::missing_field("keyFile"))?;
        let files = CertKey {
            key_password: fields.key_password,
            ocsp_file: fields.ocsp_file,
            ..CertKey::new(cert_file, key_file)
        };
        Ok(Self::CertKey(files))
    }
}

impl Serialize for Trust {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::System => to.serialize_none(),
            Self::File(path) => path.serialize(to),
            Self::TrustStore(store) => store.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Trust {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PathOrStore;

        impl<'de> Visitor<'de> for PathOrStore {
            type Value = Trust;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a certificate file, or a trust store (path, password)")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Trust, E> {
                Ok(path.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Trust, A::Error> {
                TrustStore::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(Trust::TrustStore)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Trust, E> {
                Ok(Trust::System)
            }
        }

        from.deserialize_any(PathOrStore)
    }
}
