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

/// Whether this processor has instructions for AES. Without them ChaCha20-Poly1305 is cheaper.
pub(super) fn aes_is_cheap() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let is_cheap = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let is_cheap = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let is_cheap = false;
    is_cheap
}
