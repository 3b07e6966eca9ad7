//! `cargo run --example tls_echo -- 3000 CERT.pem KEY.pem`: echo over TLS; a certificate that is replaced
//! on disk is taken over within a minute.
//!
//! `onbytes certs --out certs` makes a certificate and a key; then
//! `onbytes connect localhost 3000 --tls --cert certs/cert.pem` is a client.

use std::time::Duration;

use onbytes::{
    Bytes, Caller, CertKey, Listener, ListenerConfiguration, ListenerSecureSocket, Result,
    service_fn,
};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, cert, key] = &args[..] else {
        return Err("give a port, the file of a certificate, and the file of its key".into());
    };
    let port: u16 = port.parse().map_err(|_| "the port is a number from 0 to 65535")?;

    let secure = ListenerSecureSocket::new(CertKey::new(cert, key));
    let config = ListenerConfiguration::new().secure_socket(secure);
    let listener = Listener::new(("127.0.0.1", port), config)?;
    listener.attach(service_fn(|caller: Caller| async move {
        if let Some(tls) = caller.tls() {
            eprintln!("{}: {} with {}", caller.remote_addr(), tls.version, tls.cipher_suite);
        }
        Ok(|data: Bytes| async { Ok(Some(data)) })
    }));
    listener.start().await?;
    println!("listening on {}", listener.local_addr().ok_or("it does not listen")?);

    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = minutes.tick() => {
                if let Err(error) = listener.reload_tls().await {
                    eprintln!("the certificate of before stays in use: {error}");
                }
            }
        }
    }
    listener.graceful_stop(Duration::from_secs(10)).await;
    Ok(())
}
