//! The one place that names the cryptographic library: aws-lc-rs, or ring.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

#[cfg(feature = "tls")]
pub(super) use aws_lc_rs as primitives;
#[cfg(not(feature = "tls"))]
pub(super) use ring as primitives;

/// What rustls works with, the same for everybody. Configurations are always built with it by name:
/// rustls' own choice panics where a user's other crates switch on both libraries.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        #[cfg(feature = "tls")]
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        #[cfg(not(feature = "tls"))]
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}
