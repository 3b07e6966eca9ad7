//! An echo server of frames in plain Tokio with the codecs of tokio-util: one thread, and one task and one
//! `Framed` for each connection. What is decoded is fed back, and flushed when nothing more is decoded.
//!
//! `cargo run --release -p onbytes-benches --bin tokio-util-framed-echo -- 127.0.0.1:7000 lines`

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use onbytes_benches::cli;
use onbytes_benches::frames::Frames;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec, LinesCodec};

fn main() -> ExitCode {
    cli::exit(cli::framed_server().and_then(|(address, frames)| match frames {
        Frames::Lines => run::<_, String>(address, LinesCodec::new),
        Frames::Length => run::<_, Bytes>(address, || {
            LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec()
        }),
        other => Err(format!("{other}: tokio-util has no codec for it")),
    }))
}

/// Serves with this codec, which decodes to something of which its messages are made.
fn run<C, M>(address: SocketAddr, codec: impl Fn() -> C) -> Result<(), String>
where
    C: Decoder + Encoder<M, Error = <C as Decoder>::Error> + Send + 'static,
    C::Item: Into<M> + Send,
    <C as Decoder>::Error: Send,
    M: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(address, codec)));
    served.map_err(|error| error.to_string())
}

async fn serve<C, M>(address: SocketAddr, codec: impl Fn() -> C) -> io::Result<()>
where
    C: Decoder + Encoder<M, Error = <C as Decoder>::Error> + Send + 'static,
    C::Item: Into<M> + Send,
    <C as Decoder>::Error: Send,
    M: Send + 'static,
{
    let listener = TcpListener::bind(address).await?;
    cli::announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that fails ends alone; its peer notices by itself.
        tokio::spawn(echo(Framed::new(stream, codec())).map(drop));
    }
}

async fn echo<C, M>(mut framed: Framed<TcpStream, C>) -> Result<(), <C as Decoder>::Error>
where
    C: Decoder + Encoder<M, Error = <C as Decoder>::Error>,
    C::Item: Into<M>,
{
    while let Some(frame) = framed.next().await {
        framed.feed(frame?.into()).await?;
        while let Some(next) = framed.next().now_or_never() {
            let Some(frame) = next else { return framed.flush().await };
            framed.feed(frame?.into()).await?;
        }
        framed.flush().await?;
    }
    Ok(())
}
